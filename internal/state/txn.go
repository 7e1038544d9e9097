package state

import (
	"cmp"
	"maps"
	"slices"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Txn is a change under way: it reads as a snapshot does, with its own writes in it. It checks nothing by itself; Clashes
// and Dangling tell what a state machine must refuse. One that is not committed has no effect.
type Txn struct {
	view
	from        Version // of the snapshot that it began from
	recent      history
	clusterTime time.Time
	// contested holds, for each claim that a Put took from another object, who was seen to claim it. The other may give
	// it up later in the same transaction, so it is only judged at the end.
	contested map[string]map[Key]struct{}
	touched   map[Key]struct{}
}

// Clash is a claim that two objects hold.
type Clash struct {
	Claim  string
	First  Key // in the order of keys
	Second Key
}

// Dangle is a reference to an object that is not there.
type Dangle struct {
	From Key
	To   Key
}

// Put creates or replaces an object. The object must not be changed afterwards. One without a kind or an id is ignored.
func (t *Txn) Put(o *typesv1.Object) {
	key := KeyOf(o)
	if !key.valid() {
		return
	}
	t.touch(key)
	was := t.Get(key)
	t.unlink(key, was)
	for _, claim := range Claims(o) {
		if holder, ok := t.ClaimHolder(claim); ok && holder != key {
			t.contest(claim, holder, key)
		} else if t.contested[claim] != nil {
			t.contest(claim, key) // the present holder is not the only one who may claim it
		}
	}
	t.index(key, was, o)
	t.link(key, o)
}

// Delete removes an object; one that is not there is no error.
func (t *Txn) Delete(key Key) {
	if old := t.Get(key); old != nil {
		t.touch(key)
		t.unindex(key, old)
		t.unlink(key, old)
	}
}

// Clashes lists the claims that more than one object holds now, in order.
func (t *Txn) Clashes() []Clash {
	var out []Clash
	for _, claim := range slices.Sorted(maps.Keys(t.contested)) {
		if holders := t.holders(claim); len(holders) > 1 {
			out = append(out, Clash{Claim: claim, First: holders[0], Second: holders[1]})
		}
	}
	return out
}

// Dangling lists the references that this change leaves without their target: from an object that was put, or to one that
// was deleted, in order.
func (t *Txn) Dangling() []Dangle {
	var out []Dangle
	for _, key := range slices.SortedFunc(maps.Keys(t.touched), compareKeys) {
		if o := t.Get(key); o != nil {
			for _, to := range References(o) {
				if t.Get(to) == nil {
					out = append(out, Dangle{From: key, To: to})
				}
			}
			continue
		}
		for _, from := range t.ReferencedBy(key) {
			if _, listed := t.touched[from]; !listed {
				out = append(out, Dangle{From: from, To: key})
			}
		}
	}
	return out
}

// Commit makes the new snapshot. Cluster time never goes back: the higher of the two counts. The Txn must not be used
// afterwards.
func (t *Txn) Commit(v Version, clusterTime time.Time) *Snapshot {
	for claim := range t.contested {
		if holders := t.holders(claim); len(holders) > 0 {
			t.claims.Set(claim, holders[0])
		} else {
			t.claims.Delete(claim)
		}
	}
	for key := range t.touched {
		t.changed[key.Kind] = v.Revision
	}
	if clusterTime.Before(t.clusterTime) {
		clusterTime = t.clusterTime
	}
	if !v.SameEpoch(t.from) { // another history: nothing is known of what led to it
		t.recent = history{floor: v.Revision}
	} else {
		t.recent.add(v.Revision, t.touched)
	}
	return &Snapshot{view: t.view, version: v, recent: t.recent, clusterTime: clusterTime}
}

func (t *Txn) touch(key Key) {
	if t.touched == nil {
		t.touched = map[Key]struct{}{}
	}
	t.touched[key] = struct{}{}
}

func (t *Txn) contest(claim string, keys ...Key) {
	if t.contested == nil {
		t.contested = map[string]map[Key]struct{}{}
	}
	if t.contested[claim] == nil {
		t.contested[claim] = map[Key]struct{}{}
	}
	for _, k := range keys {
		t.contested[claim][k] = struct{}{}
	}
}

// holders are those of a contested claim's contenders whose present object claims it.
func (t *Txn) holders(claim string) []Key {
	var out []Key
	for key := range t.contested[claim] {
		if o := t.Get(key); o != nil && slices.Contains(Claims(o), claim) {
			out = append(out, key)
		}
	}
	slices.SortFunc(out, compareKeys)
	return out
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
}
