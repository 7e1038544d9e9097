package token_test

import (
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/run"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca/internal/token"
)

const (
	worker  = typesv1.NodeRole_NODE_ROLE_WORKER
	manager = typesv1.NodeRole_NODE_ROLE_MANAGER
)

func record(t *testing.T, k *keyset.Keyset, role typesv1.NodeRole, counter uint64) *typesv1.JoinToken {
	t.Helper()
	r, err := token.New(k, role, counter, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestATokenLetsInWhatItIsFor(t *testing.T) {
	k := keyset.New(run.NewRand(1), "c1")
	tokens := &typesv1.JoinTokens{Worker: record(t, k, worker, 1), Manager: record(t, k, manager, 1)}
	for _, role := range []typesv1.NodeRole{worker, manager} {
		shown, err := token.Show(k, role, tokens, []byte("root"))
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := enroll.ParseToken(shown.String())
		if err != nil || !parsed.Matches([]byte("root")) {
			t.Errorf("%s: %v", role, err)
		}
		if got, ok, err := token.Check(k, tokens, parsed.Secret); got != role || !ok || err != nil {
			t.Errorf("%s lets in %s, %v, %v", role, got, ok, err)
		}
		next := &typesv1.JoinTokens{Worker: record(t, k, worker, 2), Manager: record(t, k, manager, 2)}
		if _, ok, _ := token.Check(k, next, parsed.Secret); ok {
			t.Errorf("%s: rotated away, and still lets in", role)
		}
		if _, ok, _ := token.Check(keyset.New(run.NewRand(2), "c1"), tokens, parsed.Secret); ok {
			t.Errorf("%s: lets in with another keyset", role)
		}
	}
	if _, ok, _ := token.Check(k, &typesv1.JoinTokens{}, ""); ok {
		t.Error("an empty secret lets in where there are no tokens")
	}
	if _, err := token.Show(k, typesv1.NodeRole_NODE_ROLE_UNSPECIFIED, tokens, nil); err == nil {
		t.Error("there is a token for nobody")
	}
}
