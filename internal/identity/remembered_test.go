package identity_test

import (
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/testx"
)

// A peer that was let in once is remembered; that lets nobody in who would not be otherwise: not when its root leaves the bundle, nor when it
// is denied, runs out, is of another role than is wanted, or is for another usage.
func TestWhoWasLetInOnceIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		ca, another := identitytest.New(t, env, "c1"), identitytest.New(t, env, "c1")
		k := ca.Keeper(t, env, ca.ID(store, "m1"))
		k.SetGrace(time.Hour)
		chain := func(usage ...x509.ExtKeyUsage) []*x509.Certificate {
			cert := ca.Certificate(t, identitytest.Leaf{URIs: []string{ca.ID(scheduler, "s1").URI()}, Usage: usage})
			certs := []*x509.Certificate{cert.Leaf}
			issuer, err := x509.ParseCertificate(cert.Certificate[1])
			if err != nil {
				t.Fatal(err)
			}
			return append(certs, issuer)
		}
		client, both := chain(x509.ExtKeyUsageClientAuth), chain()
		looks := func(what string, want bool) {
			t.Helper()
			for range 2 {
				if _, err := k.VerifyClient(client); (err == nil) != want {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
		looks("at first", true)
		k.SetTrust(another.Bundle(), nil)
		looks("its root has left the bundle", false)
		k.SetTrust(append(another.Bundle(), ca.Bundle()...), nil)
		looks("its root is back", true)
		k.SetTrust(nil, []string{identity.Serial(client[0])})
		looks("denied", false)
		k.SetTrust(nil, nil)
		looks("denied no more", true)
		if _, err := k.VerifyServer(client); err == nil {
			t.Error("a client's certificate is a server's")
		}
		if _, err := k.VerifyServer(both, scheduler); err != nil {
			t.Error(err)
		}
		if _, err := k.VerifyServer(both, store); err == nil {
			t.Error("a scheduler is a store")
		}
		time.Sleep(identitytest.Life + time.Minute)
		if p, err := k.VerifyClient(client); err != nil || !p.Expired {
			t.Errorf("within the grace: %+v, %v", p, err)
		}
		time.Sleep(time.Hour)
		looks("run out", false)
	})
}
