package store

import (
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestKeysInUse: a key is in use as long as a secret or a login is sealed with it.
func TestKeysInUse(t *testing.T) {
	tx := state.Empty().Begin()
	tx.Put(state.Wrap(&typesv1.Payload{Meta: &typesv1.Meta{Id: "secret"}, Sealed: &typesv1.SealedBytes{KeyId: "k1"}}))
	tx.Put(state.Wrap(&typesv1.Payload{Meta: &typesv1.Meta{Id: "login"}, Login: &typesv1.SealedBytes{KeyId: "k2"}}))
	snap := tx.Commit(state.Version{Revision: 1}, time.Time{})
	for key, want := range map[string]bool{"k1": true, "k2": true, "k3": false} {
		if got := (&self{}).payloadKeys().Sealed(snap, key); got != want {
			t.Errorf("%s is in use: %v, want %v", key, got, want)
		}
	}
}
