package wrapper

import (
	"crypto/ecdh"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestRotationLosesNothing: when a process is removed, the key that has sealed up to then is kept though nothing is sealed with
// it yet, since a secret may be on its way; so is another's key with which something is sealed. An old key goes.
func TestRotationLosesNothing(t *testing.T) {
	r := run.NewRand(1)
	own, err := ecdh.X25519().GenerateKey(r)
	if err != nil {
		t.Fatal(err)
	}
	public := own.PublicKey().Bytes()
	foreign, old, seals := keyset.New(r, "c1"), keyset.New(r, "c1"), keyset.New(r, "c1")
	cluster := &typesv1.Cluster{Meta: &typesv1.Meta{Id: "cluster", Revision: 1}}
	give := func(k *keyset.Keyset, members ...string) {
		for _, m := range members {
			c, err := k.Wrap(m, public)
			if err != nil {
				t.Fatal(err)
			}
			cluster.PayloadKeys = append(cluster.PayloadKeys, c)
		}
	}
	give(foreign, "store/m2", "store/m3")
	give(old, "store/m1", "store/m3")
	give(seals, "store/m1", "store/m3")
	tx := state.Empty().Begin()
	tx.Put(state.Wrap(cluster))
	for _, m := range []string{"m1", "m2"} {
		meta := &typesv1.Meta{Id: "store/" + m, Revision: 1}
		tx.Put(state.Wrap(&typesv1.Member{Meta: meta, MachineId: m, WrapKey: public}))
	}
	tx.Put(state.Wrap(&typesv1.Denial{Meta: &typesv1.Meta{Id: "store/m3", Revision: 1}}))
	w := New(run.Env{Log: slog.New(slog.DiscardHandler), Now: time.Now, Rand: r}, Place{
		Of: (*typesv1.Cluster).GetPayloadKeys,
		Put: func(_ *typesv1.Cluster, keys []*typesv1.WrappedKey) *storev1.Put {
			return commit.Put(state.Wrap(&typesv1.Cluster{PayloadKeys: keys}), "payload_keys")
		},
		Sealed: func(_ *state.Snapshot, key string) bool { return key == foreign.ID() },
	}, identity.ID{Cluster: "c1", Role: authzv1.Role_ROLE_STORE, Name: "m1"}, own, keyset.NewHolder(), nil, nil)

	planned, _ := w.plan([]*keyset.Keyset{old, seals}, tx.Commit(state.Version{Revision: 1}, time.Time{}))
	var got []string
	for _, c := range planned.GetPuts()[0].GetObject().GetCluster().GetPayloadKeys() {
		got = append(got, c.GetMemberId()+" "+c.GetKeyId())
	}
	if want := []string{"store/m2 " + foreign.ID(), "store/m1 " + seals.ID()}; !slices.Equal(got, want) {
		t.Errorf("copies that are left: %v, want %v", got, want)
	}
}
