// Package wrapper hands the keyset from CA to CA.
//
// It owns both directions: this process's copy is opened with its wrap key as soon as the store has one, and while this
// process has the keyset it wraps it for every CA process that has none and that was certified as a CA and not removed. What
// counts is what the store holds, written by CAs alone: the Member's wrap key and the Credential of `ca/<machine>`. It must
// never wrap for a member that is on the deny list. A Wrapper has one caller.
package wrapper

import (
	"context"
	"crypto/ecdh"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca/internal/keyset"
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

// Wrapper opens and wraps.
type Wrapper struct {
	env    run.Env
	self   identity.ID
	own    *ecdh.PrivateKey
	keys   *keyset.Holder
	commit Committer
	health Health
}

// New makes one for this process, whose wrap key is own.
func New(env run.Env, self identity.ID, own *ecdh.PrivateKey, keys *keyset.Holder, commit Committer, health Health) *Wrapper {
	health.Set(part, false, "waits for the store")
	return &Wrapper{env: env, self: self, own: own, keys: keys, commit: commit, health: health}
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
	k := w.keys.Get()
	if k == nil {
		return true
	}
	tx, names := w.plan(k, snap)
	if tx == nil {
		return true
	}
	if _, err := w.commit.Do(ctx, tx); err != nil {
		if commit.RefusalOf(err) != nil {
			return true // another CA was first, or the cluster changed: its change wakes us
		}
		w.env.Log.Warn("keyset not handed over, will retry", "members", names, "error", err)
		return false
	}
	w.env.Log.Info("keyset handed over", "members", names)
	return true
}

// open takes this process's copy.
func (w *Wrapper) open(c *typesv1.Cluster) {
	if w.keys.Get() != nil {
		return
	}
	for _, wrapped := range c.GetAuthority().GetKeyset() {
		if wrapped.GetMemberId() != w.self.Member() {
			continue
		}
		k, err := keyset.Unwrap(w.self.Cluster, wrapped, w.own)
		if err != nil {
			w.health.Set(part, false, "the copy in the store is for another wrap key; join this machine again: "+err.Error())
			continue
		}
		w.keys.Set(k)
		w.health.Set(part, true, "")
		w.env.Log.Info("keyset received", "key", k.ID())
		return
	}
	if w.keys.Get() == nil {
		w.health.Set(part, false, "waits for another CA to hand over the keyset")
	}
}

// plan is the transaction that gives a copy to each CA that should have one and takes away those of removed ones; nil when
// all is well.
func (w *Wrapper) plan(k *keyset.Keyset, snap *state.Snapshot) (*storev1.Transaction, []string) {
	old := snap.Cluster()
	a := proto.CloneOf(old.GetAuthority())
	var changes []string
	a.Keyset = slices.DeleteFunc(a.GetKeyset(), func(c *typesv1.WrappedKey) bool {
		gone := removed(snap, c.GetMemberId()) && c.GetMemberId() != w.self.Member()
		if gone {
			changes = append(changes, c.GetMemberId())
		}
		return gone
	})
	for m := range snap.MembersOfRole(authzv1.Role_ROLE_CA) {
		id := m.GetMeta().GetId()
		if has(a, id) || !w.certified(snap, m) {
			continue
		}
		wrapped, err := k.Wrap(id, m.GetWrapKey())
		if err != nil {
			w.env.Log.Warn("keyset can not be handed over", "member", id, "error", err)
			continue
		}
		a.Keyset = append(a.Keyset, wrapped)
		changes = append(changes, id)
	}
	if len(changes) == 0 {
		return nil, nil
	}
	next := &typesv1.Cluster{Meta: &typesv1.Meta{Id: old.GetMeta().GetId()}, Authority: a}
	tx := &storev1.Transaction{
		Preconditions: []*storev1.Precondition{
			commit.Unchanged(typesv1.Kind_KIND_CLUSTER, old.GetMeta().GetId(), old.GetMeta().GetRevision()),
		},
		Puts: []*storev1.Put{commit.Put(state.Wrap(next), "authority")},
	}
	for _, id := range changes {
		// The deny list and the wrap key must still be as we saw them.
		tx.Preconditions = append(tx.Preconditions,
			commit.Unchanged(typesv1.Kind_KIND_DENIAL, id, snap.Denial(id).GetMeta().GetRevision()),
			commit.Unchanged(typesv1.Kind_KIND_MEMBER, id, snap.Member(id).GetMeta().GetRevision()))
	}
	return tx, changes
}

// removed says that a CA was removed and has not come back.
func removed(snap *state.Snapshot, id string) bool {
	if snap.Denial(id) != nil {
		return true
	}
	for range snap.Removals(id) {
		return snap.Member(id) == nil && snap.Credential(id) == nil
	}
	return false
}

func has(a *typesv1.Authority, member string) bool {
	return slices.ContainsFunc(a.GetKeyset(), func(c *typesv1.WrappedKey) bool { return c.GetMemberId() == member })
}

// certified says that the member has a certificate as a CA on record that has not run out for longer than the grace, and was
// not removed.
func (w *Wrapper) certified(snap *state.Snapshot, m *typesv1.Member) bool {
	id := identity.ID{Role: authzv1.Role_ROLE_CA, Name: m.GetMachineId()}.Member()
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
