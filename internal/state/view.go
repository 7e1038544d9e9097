package state

import (
	"fmt"
	"iter"
	"strings"

	"github.com/tidwall/btree"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// tree is an ordered map that is copied in constant time and shares what neither side changes.
type tree = btree.Map[string, *typesv1.Object]

// view is what a snapshot and a transaction have in common: the objects by kind and id, and the indexes.
type view struct {
	objects [kinds]*tree
	// indexes hold the objects themselves under longer keys that end in the object's id.
	indexes [indexes]*tree
	claims  *btree.Map[string, Key]
	refs    *btree.Map[string, Key] // target, then source -> source
	changed [kinds]uint64           // revision of the last change of each kind
}

// index numbers the secondary orders of objects.
type index int

const (
	bySlot     index = iota // tasks: service, slot
	byNode                  // tasks: node
	byHostname              // nodes: hostname
	byRole                  // members: role
	indexes
)

// sep ends each part of an index key. No id or name has it.
const sep = "\x00"

func newView() view {
	var v view
	for i := range v.objects {
		v.objects[i] = new(tree)
	}
	for i := range v.indexes {
		v.indexes[i] = new(tree)
	}
	v.claims = new(btree.Map[string, Key])
	v.refs = new(btree.Map[string, Key])
	return v
}

func (v *view) copy() view {
	var c view
	for i := range v.objects {
		c.objects[i] = v.objects[i].Copy()
	}
	for i := range v.indexes {
		c.indexes[i] = v.indexes[i].Copy()
	}
	c.claims = v.claims.Copy()
	c.refs = v.refs.Copy()
	c.changed = v.changed
	return c
}

// entry is one place in an index.
type entry struct {
	index index
	key   string
}

// entries are the places of an object in the indexes, at most two.
type entries struct {
	list [2]entry
	n    int
}

func (e *entries) add(i index, key string) {
	e.list[e.n] = entry{i, key}
	e.n++
}

// entriesOf lists the places of an object in the indexes.
func entriesOf(o *typesv1.Object) (out entries) {
	switch k := o.GetKind().(type) {
	case *typesv1.Object_Task:
		id := k.Task.GetMeta().GetId()
		out.add(bySlot, slotKey(k.Task.GetServiceId(), k.Task.GetDecided().GetSlot(), id))
		if node := k.Task.GetDecided().GetNodeId(); node != "" {
			out.add(byNode, node+sep+id)
		}
	case *typesv1.Object_Node:
		if name := Hostname(k.Node); name != "" {
			out.add(byHostname, name+sep+k.Node.GetMeta().GetId())
		}
	case *typesv1.Object_Member:
		out.add(byRole, rolePrefix(k.Member.GetRole())+k.Member.GetMeta().GetId())
	}
	return out
}

func slotPrefix(service string, slot uint64) string { return slotKey(service, slot, "") }

// slotKey is the slot's number in hexadecimal, so that the order of keys is that of slots. It is asked for with each task that changes.
func slotKey(service string, slot uint64, id string) string {
	b := make([]byte, 0, len(service)+len(id)+2*len(sep)+16)
	b = append(append(b, service...), sep...)
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[slot>>shift&15])
	}
	return string(append(append(b, sep...), id...))
}

func rolePrefix(r authzv1.Role) string { return fmt.Sprintf("%04d%s", r, sep) }

func refPrefix(target Key) string { return fmt.Sprintf("%d%s%s%s", target.Kind, sep, target.ID, sep) }

func refKey(target, source Key) string {
	return fmt.Sprintf("%s%d%s%s", refPrefix(target), source.Kind, sep, source.ID)
}

// Hostname is what people call a machine: what it says of itself now, else what was certified at its join.
func Hostname(n *typesv1.Node) string {
	if h := n.GetStatus().GetDescription().GetHostname(); h != "" {
		return h
	}
	return n.GetIdentity().GetHostname()
}

// index puts an object in the place of what it was, nil if it is new, wherever objects are found.
func (v *view) index(key Key, was, is *typesv1.Object) {
	v.objects[key.Kind].Set(key.ID, is)
	then, now := entriesOf(was), entriesOf(is)
	for i, e := range then.list[:then.n] {
		if i >= now.n || now.list[i] != e { // what is only replaced stays where it is
			v.indexes[e.index].Delete(e.key)
		}
	}
	for _, e := range now.list[:now.n] {
		v.indexes[e.index].Set(e.key, is)
	}
}

// unindex takes an object out wherever objects are found.
func (v *view) unindex(key Key, o *typesv1.Object) {
	v.objects[key.Kind].Delete(key.ID)
	was := entriesOf(o)
	for _, e := range was.list[:was.n] {
		v.indexes[e.index].Delete(e.key)
	}
}

// link notes what an object claims and refers to.
func (v *view) link(key Key, o *typesv1.Object) {
	for _, c := range Claims(o) {
		v.claims.Set(c, key)
	}
	for _, to := range References(o) {
		v.refs.Set(refKey(to, key), key)
	}
}

// unlink takes that back; nil is no error. A claim that another object has taken over meanwhile stays its.
func (v *view) unlink(key Key, o *typesv1.Object) {
	for _, c := range Claims(o) {
		if holder, ok := v.claims.Get(c); ok && holder == key {
			v.claims.Delete(c)
		}
	}
	for _, to := range References(o) {
		v.refs.Delete(refKey(to, key))
	}
}

// Get is the object of a key; nil when absent.
func (v *view) Get(key Key) *typesv1.Object {
	if !key.valid() {
		return nil
	}
	o, _ := v.objects[key.Kind].Get(key.ID)
	return o
}

// ClaimHolder tells who holds a claim.
func (v *view) ClaimHolder(claim string) (Key, bool) { return v.claims.Get(claim) }

// ClaimsFrom walks the claims that begin with the prefix, in order: "address/-/" gives all of the machine network.
func (v *view) ClaimsFrom(prefix string) iter.Seq2[string, Key] {
	return func(yield func(string, Key) bool) {
		v.claims.Ascend(prefix, func(claim string, holder Key) bool {
			return strings.HasPrefix(claim, prefix) && yield(claim, holder)
		})
	}
}

// ReferencedBy lists who refers to the object, in order.
func (v *view) ReferencedBy(target Key) []Key {
	var out []Key
	prefix := refPrefix(target)
	v.refs.Ascend(prefix, func(k string, source Key) bool {
		if !strings.HasPrefix(k, prefix) {
			return false
		}
		out = append(out, source)
		return true
	})
	return out
}

// ChangedAt is the revision at which an object of one of the kinds was changed last, as far as this process has seen it.
func (v *view) ChangedAt(only ...typesv1.Kind) uint64 {
	var last uint64
	for _, k := range only {
		if (Key{Kind: k, ID: "-"}).valid() {
			last = max(last, v.changed[k])
		}
	}
	return last
}

// Count is the number of objects of a kind.
func (v *view) Count(kind typesv1.Kind) int {
	if !(Key{Kind: kind, ID: "-"}).valid() {
		return 0
	}
	return v.objects[kind].Len()
}

// Objects walks the objects of the kinds given, all when none is given, in the order of kind and id.
func (v *view) Objects(only ...typesv1.Kind) iter.Seq[*typesv1.Object] {
	if len(only) == 0 {
		only = Kinds()
	}
	return func(yield func(*typesv1.Object) bool) {
		for _, k := range only {
			if !(Key{Kind: k, ID: "-"}).valid() {
				continue
			}
			more := true
			v.objects[k].Scan(func(_ string, o *typesv1.Object) bool {
				more = yield(o)
				return more
			})
			if !more {
				return
			}
		}
	}
}

// under walks the objects of an index whose key begins with the prefix.
func under[T any](t *tree, prefix string, get func(*typesv1.Object) T) iter.Seq[T] {
	return func(yield func(T) bool) {
		t.Ascend(prefix, func(k string, o *typesv1.Object) bool {
			return strings.HasPrefix(k, prefix) && yield(get(o))
		})
	}
}
