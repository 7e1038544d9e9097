package wrapper

import (
	"crypto/ecdh"
	"log/slog"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// world is a cluster with copies of keys, a store m1 that hands them over, m2, and m3, which was removed.
type world struct {
	t       *testing.T
	r       *run.Rand
	own     *ecdh.PrivateKey
	cluster *typesv1.Cluster
	sealed  []string // keys with which something is
}

func newWorld(t *testing.T) *world {
	t.Helper()
	r := run.NewRand(1)
	own, err := ecdh.X25519().GenerateKey(r)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, r, own, &typesv1.Cluster{Meta: &typesv1.Meta{Id: "cluster", Revision: 1}}, nil}
}

func (w *world) key(members ...string) *keyset.Keyset {
	w.t.Helper()
	k := keyset.New(w.r, "c1")
	for _, m := range members {
		c, err := k.Wrap(m, w.own.PublicKey().Bytes())
		if err != nil {
			w.t.Fatal(err)
		}
		w.cluster.PayloadKeys = append(w.cluster.PayloadKeys, c)
	}
	return k
}

// plan are the copies that are left when m1 has a ring of keys.
func (w *world) plan(removed bool, ring ...*keyset.Keyset) (left []string) {
	w.t.Helper()
	tx := state.Empty().Begin()
	tx.Put(state.Wrap(w.cluster))
	public := w.own.PublicKey().Bytes()
	for _, m := range []string{"m1", "m2"} {
		id := "store/" + m
		tx.Put(state.Wrap(&typesv1.Member{Meta: &typesv1.Meta{Id: id, Revision: 1}, Role: authzv1.Role_ROLE_STORE, MachineId: m, WrapKey: public}))
		if !removed {
			tx.Put(state.Wrap(&typesv1.Credential{Meta: &typesv1.Meta{Id: id, Revision: 1}, NotAfter: timestamppb.New(time.Now().Add(time.Hour))}))
		}
	}
	if removed {
		tx.Put(state.Wrap(&typesv1.Denial{Meta: &typesv1.Meta{Id: "store/m3", Revision: 1}}))
	}
	one := New(run.Env{Log: slog.New(slog.DiscardHandler), Now: time.Now, Rand: w.r}, Place{
		Of: (*typesv1.Cluster).GetPayloadKeys,
		Put: func(_ *typesv1.Cluster, keys []*typesv1.WrappedKey) *storev1.Put {
			return commit.Put(state.Wrap(&typesv1.Cluster{PayloadKeys: keys}), "payload_keys")
		},
		Sealed: func(_ *state.Snapshot, key string) bool { return slices.Contains(w.sealed, key) },
	}, identity.ID{Cluster: "c1", Role: authzv1.Role_ROLE_STORE, Name: "m1"}, w.own, keyset.NewHolder(), nil, nil)
	planned, _ := one.plan(ring, tx.Commit(state.Version{Revision: 1}, time.Time{}))
	if planned == nil {
		return nil
	}
	for _, c := range planned.GetPuts()[0].GetObject().GetCluster().GetPayloadKeys() {
		left = append(left, c.GetMemberId()+" "+c.GetKeyId())
	}
	return left
}

// TestRotationLosesNothing: when a process is removed, the key that has sealed up to then is kept though nothing is sealed with
// it yet, since a secret may be on its way; so is another's key with which something is sealed. An old key goes.
func TestRotationLosesNothing(t *testing.T) {
	w := newWorld(t)
	foreign, old, seals := w.key("store/m2", "store/m3"), w.key("store/m1", "store/m3"), w.key("store/m1", "store/m3")
	w.sealed = []string{foreign.ID()}
	got := w.plan(true, old, seals)
	if want := []string{"store/m2 " + foreign.ID(), "store/m1 " + seals.ID()}; !slices.Equal(got, want) {
		t.Errorf("copies that are left: %v, want %v", got, want)
	}
}

// TestNewestKeyOfOthersIsKept: a store that hands keys over and was not given the newest one keeps its copies, though nothing is
// sealed with it yet: whoever has it may be about to commit a secret. Without a newer one it stays the newest, or the others would
// seal with one that a removed store knows.
func TestNewestKeyOfOthersIsKept(t *testing.T) {
	for _, removed := range []bool{true, false} {
		w := newWorld(t)
		old := w.key("store/m1", "store/m3")
		newest := w.key("store/m2")
		got := w.plan(removed, old)
		want := []string{"store/m1 " + old.ID(), "store/m3 " + old.ID(), "store/m2 " + old.ID(), "store/m2 " + newest.ID()}
		if removed { // the removed one's copy goes, and a key that it does not know is made after both
			want = []string{"store/m2 " + newest.ID(), "store/m1 " + old.ID()}
		}
		if !slices.Equal(got, want) {
			t.Errorf("removed %v: copies that are left: %v, want %v", removed, got, want)
		}
	}
}
