// Package wrapper hands a keyset from process to process of one role.
//
// It owns both directions: this process's copy is opened with its wrap key as soon as the store has one, and while this
// process has the keyset it wraps it for every process of the role that has none and that was certified as such and not
// removed. A place may ask for a new one when a process that had a copy is removed. What counts is what the store holds, written by CAs alone: the Member's wrap key and the Credential of
// `<role>/<machine>`. It must never wrap for a member that is on the deny list. A Wrapper has one caller.
package wrapper

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"slices"
	"time"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// retry is the wait after a commit that failed.
const retry = time.Second

// View is the replica of the cluster.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
}

// Committer writes to the store.
type Committer interface {
	Do(ctx context.Context, tx *storev1.Transaction) (*typesv1.Version, error)
}

// Health is told whether this process has the keyset.
type Health interface {
	Set(part string, ok bool, why string)
}

// part is the name in the process's health.
const part = "keyset"

// Place is where the cluster keeps the copies of one keyset, and for whom.
type Place struct {
	// Of are the copies that there are.
	Of func(c *typesv1.Cluster) []*typesv1.WrappedKey
	// Put writes others in their place.
	Put func(old *typesv1.Cluster, keys []*typesv1.WrappedKey) *storev1.Put
	// For says of a member of the role whether it should have a copy; nil: each should.
	For func(m *typesv1.Member) bool
	// May says whether this process hands over now; nil: always.
	May func() bool
	// Begin makes the keyset when the cluster has none.
	Begin bool
	// Sealed says whether something is sealed with a key. With it a new key is made when a process that had a copy was removed,
	// so that what is sealed from then on is closed to it; the one before it is kept, older ones while something is sealed with
	// them. nil: the key stays as it is.
	Sealed func(s *state.Snapshot, keyID string) bool
}

// Wrapper opens and wraps.
type Wrapper struct {
	env    run.Env
	place  Place
	self   identity.ID
	own    *ecdh.PrivateKey
	keys   *keyset.Holder
	commit Committer
	health Health
}

// New makes one for this process, whose wrap key is own. Health may be nil, where a process is well without the keyset.
func New(env run.Env, place Place, self identity.ID, own *ecdh.PrivateKey, keys *keyset.Holder, commit Committer, health Health) *Wrapper {
	w := &Wrapper{env: env, place: place, self: self, own: own, keys: keys, commit: commit, health: health}
	w.tell(false, "waits for the store")
	return w
}

func (w *Wrapper) tell(ok bool, why string) {
	if w.health != nil {
		w.health.Set(part, ok, why)
	}
}

// Run follows the cluster until ctx ends.
func (w *Wrapper) Run(ctx context.Context, view View) error {
	for {
		changed := view.Changed()
		if !w.step(ctx, view.Snapshot()) {
			if err := run.Sleep(ctx, w.env.Rand.Jitter(retry, 0.5)); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// step does what the snapshot asks for; false asks to be called again soon.
func (w *Wrapper) step(ctx context.Context, snap *state.Snapshot) (done bool) {
	if snap.Cluster() == nil {
		return true
	}
	w.open(snap.Cluster())
	if w.place.May != nil && !w.place.May() {
		return true
	}
	ring := w.keys.Ring()
	if len(ring) == 0 && w.place.Begin && len(w.place.Of(snap.Cluster())) == 0 {
		ring = []*keyset.Keyset{keyset.New(w.env.Rand, w.self.Cluster)} // kept once the store has a copy that this process can open
	}
	if len(ring) == 0 {
		return true
	}
	tx, names := w.plan(ring, snap)
	if tx == nil {
		return true
	}
	if _, err := w.commit.Do(ctx, tx); err != nil {
		if commit.RefusalOf(err) != nil {
			return true // another process was first, or the cluster changed: its change wakes us
		}
		w.env.Log.Warn("keyset not handed over, will retry", "members", names, "error", err)
		return false
	}
	w.env.Log.Info("keyset handed over", "members", names)
	return true
}

// open takes this process's copies.
func (w *Wrapper) open(c *typesv1.Cluster) {
	ring, changed := []*keyset.Keyset{}, false
	for _, wrapped := range w.place.Of(c) {
		if wrapped.GetMemberId() != w.self.Member() {
			continue
		}
		if k := w.keys.Of(wrapped.GetKeyId()); k != nil {
			ring = append(ring, k)
			continue
		}
		k, err := keyset.Unwrap(w.self.Cluster, wrapped, w.own)
		if err != nil {
			w.tell(false, "the copy in the store is for another wrap key; join this machine again: "+err.Error())
			continue
		}
		ring, changed = append(ring, k), true
		w.env.Log.Info("keyset received", "key", k.ID())
	}
	switch had := len(w.keys.Ring()); {
	case len(ring) > 0 && (changed || len(ring) != had):
		w.keys.Set(ring...)
		w.tell(true, "")
	case had == 0:
		w.tell(false, "waits for another "+identity.RoleName(w.self.Role)+" to hand over the keyset")
	}
}

// plan is the transaction that gives a copy to each process that should have one and takes away those of removed ones; nil
// when all is well. The copies stand in the order of their keys, the newest key's last.
func (w *Wrapper) plan(ring []*keyset.Keyset, snap *state.Snapshot) (*storev1.Transaction, []string) {
	old := snap.Cluster()
	var changes []string
	copies := slices.DeleteFunc(slices.Clone(w.place.Of(old)), func(c *typesv1.WrappedKey) bool {
		m := snap.Member(c.GetMemberId())
		other := m != nil && len(c.GetTo()) > 0 && !bytes.Equal(c.GetTo(), m.GetWrapKey()) // it has joined again
		gone := (removed(snap, c.GetMemberId()) || other) && c.GetMemberId() != w.self.Member()
		if gone {
			changes = append(changes, c.GetMemberId())
		}
		return gone
	})
	if len(changes) > 0 && w.place.Sealed != nil {
		last := ring[len(ring)-1] // it seals up to this change: what it has sealed may be on its way to the store
		ring = slices.DeleteFunc(slices.Clone(ring), func(k *keyset.Keyset) bool { return k != last && !w.place.Sealed(snap, k.ID()) })
		ring = append(ring, keyset.New(w.env.Rand, w.self.Cluster))
	}
	next, newest := w.others(ring, w.place.Of(old), copies, snap)
	for _, k := range ring {
		for _, c := range copies {
			if c.GetKeyId() == k.ID() {
				next = append(next, c)
			}
		}
		for m := range snap.MembersOfRole(w.self.Role) {
			id := m.GetMeta().GetId()
			if has(copies, id, k.ID()) || !w.certified(snap, m) || w.place.For != nil && !w.place.For(m) {
				continue
			}
			wrapped, err := k.Wrap(id, m.GetWrapKey())
			if err != nil {
				w.env.Log.Warn("keyset can not be handed over", "member", id, "error", err)
				continue
			}
			next = append(next, wrapped)
			changes = append(changes, id)
		}
	}
	next = append(next, newest...)
	if len(changes) == 0 {
		return nil, nil
	}
	slices.Sort(changes)
	changes = slices.Compact(changes)
	tx := &storev1.Transaction{
		Preconditions: []*storev1.Precondition{
			commit.Unchanged(typesv1.Kind_KIND_CLUSTER, old.GetMeta().GetId(), old.GetMeta().GetRevision()),
		},
		Puts: []*storev1.Put{w.place.Put(old, next)},
	}
	for _, id := range changes {
		// The deny list and the wrap key must still be as we saw them.
		tx.Preconditions = append(tx.Preconditions,
			commit.Unchanged(typesv1.Kind_KIND_DENIAL, id, snap.Denial(id).GetMeta().GetRevision()),
			commit.Unchanged(typesv1.Kind_KIND_MEMBER, id, snap.Member(id).GetMeta().GetRevision()))
	}
	return tx, changes
}

// others are the copies of keys that this process was not given: only those who have them can open what is sealed with them.
// They are kept of a key with which something is sealed, and of the cluster's newest: what it has sealed may be on its way to
// the store. Unless this change makes a newer one, that one stays the newest.
func (w *Wrapper) others(ring []*keyset.Keyset, had, copies []*typesv1.WrappedKey, snap *state.Snapshot) (out, newest []*typesv1.WrappedKey) {
	if w.place.Sealed == nil || len(had) == 0 {
		return nil, nil
	}
	last := had[len(had)-1].GetKeyId()
	fresh := !slices.ContainsFunc(had, func(c *typesv1.WrappedKey) bool { return c.GetKeyId() == ring[len(ring)-1].ID() })
	for _, c := range copies {
		own := slices.ContainsFunc(ring, func(k *keyset.Keyset) bool { return k.ID() == c.GetKeyId() })
		switch {
		case own:
		case c.GetKeyId() == last && !fresh:
			newest = append(newest, c)
		case c.GetKeyId() == last, w.place.Sealed(snap, c.GetKeyId()):
			out = append(out, c)
		}
	}
	return out, newest
}

// removed says that a process was removed and has not come back.
func removed(snap *state.Snapshot, id string) bool {
	if snap.Denial(id) != nil {
		return true
	}
	for range snap.Removals(id) {
		return snap.Member(id) == nil && snap.Credential(id) == nil
	}
	return false
}

func has(copies []*typesv1.WrappedKey, member, key string) bool {
	return slices.ContainsFunc(copies, func(c *typesv1.WrappedKey) bool { return c.GetMemberId() == member && c.GetKeyId() == key })
}

// certified says that the member has a certificate of the role on record that has not run out for longer than the grace, and
// was not removed.
func (w *Wrapper) certified(snap *state.Snapshot, m *typesv1.Member) bool {
	id := identity.ID{Role: w.self.Role, Name: m.GetMachineId()}.Member()
	c := snap.Credential(id)
	if id != m.GetMeta().GetId() || c == nil || len(m.GetWrapKey()) == 0 {
		return false
	}
	if snap.Denial(id) != nil || snap.Denial(c.GetSerial()) != nil {
		return false
	}
	grace := identity.DefaultGrace
	if g := snap.Cluster().GetSpec().GetCertificateGrace(); g != nil {
		grace = g.AsDuration()
	}
	return w.env.Now().Before(c.GetNotAfter().AsTime().Add(grace))
}
