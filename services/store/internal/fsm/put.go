package fsm

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func (a *attempt) applyPuts() *storev1.Outcome {
	for _, p := range a.tx.GetPuts() {
		if r := a.put(p); r != nil {
			return r
		}
	}
	return nil
}

func (a *attempt) put(p *storev1.Put) *storev1.Outcome {
	key := state.KeyOf(p.GetObject())
	old := a.txn.Get(key)
	switch {
	case p.GetCreate() && old != nil:
		return refuse(storev1.RefusalReason_REFUSAL_REASON_EXISTS, key, "%s exists", a.named(key))
	case !p.GetCreate() && old == nil:
		return refuse(storev1.RefusalReason_REFUSAL_REASON_NOT_FOUND, key, "%s does not exist", key)
	}
	if r := a.mayWrite(key, p); r != nil {
		return r
	}
	if r := a.guarded(key, old); r != nil {
		return r
	}
	next, r := a.merge(key, old, p)
	if r != nil {
		return r
	}
	if r := a.rules(key, old, next, p); r != nil {
		return r
	}
	if unchangedTask(old, next) {
		return nil // an older report came late: it is dropped, and nobody need know
	}
	a.txn.Put(next)
	a.puts = append(a.puts, next)
	return nil
}

// merge takes the listed fields from the put and all others from the old object. Parts are shared with both: no object is
// ever changed in place.
func (a *attempt) merge(key state.Key, old *typesv1.Object, p *storev1.Put) (*typesv1.Object, *storev1.Outcome) {
	from := state.Unwrap(p.GetObject()).ProtoReflect()
	to := from.New()
	if old != nil {
		state.Unwrap(old).ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			to.Set(fd, v)
			return true
		})
	}
	for _, name := range p.GetFields() {
		fd := from.Descriptor().Fields().ByName(protoreflect.Name(name))
		if fd == nil || name == "meta" {
			return nil, invalid(key, "%s has no field %q that can be written", state.KindName(key.Kind), name)
		}
		if from.Has(fd) {
			to.Set(fd, from.Get(fd))
		} else {
			to.Clear(fd)
		}
	}
	meta := &typesv1.Meta{
		Id:        key.ID,
		Revision:  a.revision,
		CreatedAt: timestamppb.New(a.at),
		UpdatedAt: timestamppb.New(a.at),
	}
	if old != nil {
		meta.CreatedAt = state.MetaOf(old).GetCreatedAt()
	}
	to.Set(to.Descriptor().Fields().ByName("meta"), protoreflect.ValueOfMessage(meta.ProtoReflect()))
	next := state.Wrap(to.Interface())
	if t := next.GetTask(); t != nil {
		keepObserved(old.GetTask(), t)
	}
	return next, nil
}

// mayWrite holds the caller to the fields of its role.
func (a *attempt) mayWrite(key state.Key, p *storev1.Put) *storev1.Outcome {
	if a.begins {
		return nil
	}
	role := a.tx.GetCaller().GetRole()
	for _, f := range p.GetFields() {
		if !a.machine.writers.Allows(key.Kind, f, role, p.GetCreate()) {
			return denied(key, "%s may not write %s.%s", CallerID(a.tx.GetCaller()), state.KindName(key.Kind), f)
		}
	}
	if p.GetCreate() && !mayCreate(key.Kind, role) {
		return denied(key, "%s may not make a %s", CallerID(a.tx.GetCaller()), state.KindName(key.Kind))
	}
	return a.own(key, p)
}

func (a *attempt) applyDeletes() *storev1.Outcome {
	for _, d := range a.tx.GetDeletes() {
		key := state.Key{Kind: d.GetKind(), ID: d.GetId()}
		old := a.txn.Get(key)
		if old == nil {
			return refuse(storev1.RefusalReason_REFUSAL_REASON_NOT_FOUND, key, "%s does not exist", key)
		}
		if !a.begins && !a.mayDelete(key, old) {
			return denied(key, "%s may not remove %s", CallerID(a.tx.GetCaller()), key)
		}
		if r := a.guarded(key, old); r != nil {
			return r
		}
		a.txn.Delete(key)
	}
	return nil
}

// unchangedTask reports whether nothing but the stamps differs.
func unchangedTask(old, next *typesv1.Object) bool {
	was, is := old.GetTask(), next.GetTask()
	return was != nil && is != nil && was.GetDecided() == is.GetDecided() && proto.Equal(was.GetObserved(), is.GetObserved())
}

func has(fields []string, name string) bool { return slices.Contains(fields, name) }
