package identity_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
)

// A process that was removed is refused with every certificate of before, and let in with one of after; others are not
// concerned.
func TestARemovedProcessComesBackWithANewCertificateAlone(t *testing.T) {
	env := testx.Env(t)
	ca := identitytest.New(t, env, "c1")
	server := ca.Keeper(t, env, ca.ID(authzv1.Role_ROLE_STORE, "m1"))
	id := ca.ID(authzv1.Role_ROLE_DISPATCHER, "d1")
	now := env.Now()
	entry := identity.DeniedBefore(id.Member(), now.Add(-10*time.Minute))
	if !strings.HasPrefix(entry, id.Member()+state.RemovedMark) {
		t.Fatalf("the store would not find %s by its member", entry)
	}
	server.SetTrust(nil, []string{entry, identity.DeniedBefore(id.Member(), now.Add(-time.Hour)), "dispatcher/d2@nonsense"})
	for _, c := range []struct {
		name   string
		begins time.Duration
		id     identity.ID
		denied bool
	}{
		{"certified before", -11 * time.Minute, id, true},
		{"certified in the second of the removal", -10 * time.Minute, id, true},
		{"certified after", -10*time.Minute + 2*time.Second, id, false},
		{"another machine's", -time.Hour, ca.ID(authzv1.Role_ROLE_DISPATCHER, "d2"), false},
		{"another role's", -time.Hour, ca.ID(authzv1.Role_ROLE_GATEWAY, "d1"), false},
	} {
		leaf := ca.Certificate(t, identitytest.Leaf{URIs: []string{c.id.URI()}, NotBefore: now.Add(c.begins)})
		chain, err := identity.DecodeCertificates(ca.Bundle())
		if err != nil {
			t.Fatal(err)
		}
		for i := len(leaf.Certificate) - 1; i >= 0; i-- {
			cert, err := x509.ParseCertificate(leaf.Certificate[i])
			if err != nil {
				t.Fatal(err)
			}
			chain = append([]*x509.Certificate{cert}, chain...)
		}
		_, err = server.VerifyClient(chain)
		if errs.Is(err, errs.Denied) != c.denied || (err != nil) != c.denied {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if at := identity.Removed([]string{entry, "x", identity.DeniedBefore("dispatcher/d10", now)}, id.Member()); at.Unix() != now.Add(-10*time.Minute).Unix()+1 {
		t.Errorf("removed at %s", at)
	}
}
