package identity_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

const (
	store     = authzv1.Role_ROLE_STORE
	scheduler = authzv1.Role_ROLE_SCHEDULER
)

func TestAnIDSurvivesItsURI(t *testing.T) {
	for _, id := range []identity.ID{
		{Cluster: "c1", Role: store, Name: "m1"},
		{Cluster: identity.NewID(run.NewRand(1)), Role: authzv1.Role_ROLE_OPERATOR, Name: "ann-b.c@example.org"},
	} {
		got, err := identity.Parse(id.URI())
		if err != nil || got != id {
			t.Errorf("Parse(%q) = %v, %v", id.URI(), got, err)
		}
	}
}

func TestOnlyExactURIsAreIdentities(t *testing.T) {
	for _, uri := range []string{
		"", "spiffe://", "spiffe://c1/store", "spiffe://c1/store/m1/", "spiffe://c1/store/m1/x", "https://c1/store/m1", "spiffe://c1//m1",
		"spiffe:///store/m1", "spiffe://c1/anonymous/m1", "spiffe://c1/unspecified/m1", "spiffe://c1/Store/m1", "spiffe://c1/STORE/m1",
		"spiffe://c1/store/M1", "spiffe://c1/store/..", "spiffe://c1/store/a b", "spiffe://c1/store/a%2fb", "spiffe://c1:80/store/m1",
		"spiffe://u@c1/store/m1", "spiffe://c1/store/m1?x=1", "spiffe://c1/store/" + strings.Repeat("a", 65), "spiffe://c1/nobody/m1",
	} {
		if id, err := identity.Parse(uri); err == nil {
			t.Errorf("Parse(%q) = %v, wanted an error", uri, id)
		}
	}
}

func TestIDsAre25CharactersOfBase36(t *testing.T) {
	r := run.NewRand(7)
	seen := map[string]bool{}
	for range 1000 {
		id := identity.NewID(r)
		if len(id) != 25 || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyz") != "" || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
	if got := identity.Base36([]byte{0, 35}, 3); got != "00z" {
		t.Errorf("Base36 = %q, wanted 00z", got)
	}
}

func TestKeysAreSecretOnDisk(t *testing.T) {
	env := testx.Env(t)
	ca := identitytest.New(t, env, "c1")
	ca.Write(t, env, "/id", identitytest.Leaf{URIs: []string{ca.ID(store, "m1").URI()}})
	if _, err := identity.NextKey(env.Files, "/id", env.Rand); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.WrapKey(env.Files, "/wrap.key", env.Rand); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/id/" + identity.KeyFile, "/id/" + identity.NextKeyFile, "/wrap.key"} {
		if info, err := env.Files.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// A key that others may read is refused, and the error says what to do.
func TestAKeyThatOthersMayReadIsRefused(t *testing.T) {
	env := testx.Env(t)
	ca := identitytest.New(t, env, "c1")
	uses := map[string]func() error{
		"/id/" + identity.KeyFile:     func() error { _, err := identity.Load(env, "/id"); return err },
		"/id/" + identity.NextKeyFile: func() error { _, err := identity.NextKey(env.Files, "/id", env.Rand); return err },
		"/wrap.key":                   func() error { _, err := identity.WrapKey(env.Files, "/wrap.key", env.Rand); return err },
	}
	for name, use := range uses {
		for _, mode := range []fs.FileMode{0o644, 0o640, 0o602, 0o700} {
			ca.Write(t, env, "/id", identitytest.Leaf{URIs: []string{ca.ID(store, "m1").URI()}})
			for _, other := range uses {
				if err := other(); err != nil {
					t.Fatal(err)
				}
			}
			data, err := env.Files.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := env.Files.Write(name, data, mode); err != nil {
				t.Fatal(err)
			}
			if err := use(); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "chmod 0600 "+name) {
				t.Errorf("%s with mode %o: %v", name, mode, err)
			}
			if err := env.Files.Write(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAWrapKeyStays(t *testing.T) {
	env := testx.Env(t)
	a, err := identity.WrapKey(env.Files, "/wrap.key", env.Rand)
	if err != nil {
		t.Fatal(err)
	}
	b, err := identity.WrapKey(env.Files, "/wrap.key", env.Rand)
	if err != nil || !a.Equal(b) {
		t.Fatalf("another key: %v", err)
	}
	if err := env.Files.Write("/wrap.key", []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.WrapKey(env.Files, "/wrap.key", env.Rand); !errs.Is(err, errs.Invalid) {
		t.Errorf("rubbish: %v", err)
	}
}

func TestAMachineThatHasNotJoinedIsToldSo(t *testing.T) {
	_, err := identity.Load(testx.Env(t), "/nowhere")
	if !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "shoal join") {
		t.Fatal(err)
	}
}

// A power cut between the certificate and its key leaves the key under its next name.
func TestAnInterruptedRenewalIsFinishedAtTheNextStart(t *testing.T) {
	env := testx.Env(t)
	ca := identitytest.New(t, env, "c1")
	id := ca.ID(store, "m1")
	ca.Write(t, env, "/id", identitytest.Leaf{URIs: []string{id.URI()}})
	key, err := identity.NextKey(env.Files, "/id", env.Rand)
	if err != nil {
		t.Fatal(err)
	}
	chain := ca.Sign(t, identitytest.Leaf{URIs: []string{id.URI()}}, &key.PublicKey)
	if err := env.Files.Write("/id/"+identity.CertFile, chain, 0o644); err != nil {
		t.Fatal(err)
	}
	k, err := identity.Load(env, "/id")
	if err != nil || k.ID() != id {
		t.Fatal(k, err)
	}
	if _, err := env.Files.Stat("/id/" + identity.NextKeyFile); err == nil {
		t.Error("the next key is still there")
	}
	if _, err := identity.Load(env, "/id"); err != nil {
		t.Error("second start:", err)
	}
}

// A join whose first certificate was written, but not its key.
func TestAnInterruptedFirstWriteIsFinishedAtTheNextStart(t *testing.T) {
	env := testx.Env(t)
	ca := identitytest.New(t, env, "c1")
	key, err := identity.NextKey(env.Files, "/id", env.Rand)
	if err != nil {
		t.Fatal(err)
	}
	chain := ca.Sign(t, identitytest.Leaf{URIs: []string{ca.ID(store, "m1").URI()}}, &key.PublicKey)
	for name, data := range map[string][]byte{identity.CertFile: chain, identity.BundleFile: ca.Bundle()} {
		if err := env.Files.Write(path.Join("/id", name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := identity.Load(env, "/id"); err != nil {
		t.Fatal(err)
	}
}

func TestLoadRefusesAKeyOfAnotherCertificate(t *testing.T) {
	env := testx.Env(t)
	ca := identitytest.New(t, env, "c1")
	leaf := identitytest.Leaf{URIs: []string{ca.ID(store, "m1").URI()}}
	ca.Write(t, env, "/a", leaf)
	ca.Write(t, env, "/b", leaf)
	other, err := env.Files.Read("/b/" + identity.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := env.Files.Write("/a/"+identity.KeyFile, other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Load(env, "/a"); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
}

func TestTrustIsToldAndKept(t *testing.T) {
	env := testx.Env(t)
	ca := identitytest.New(t, env, "c1")
	ca.Write(t, env, "/id", identitytest.Leaf{URIs: []string{ca.ID(store, "m1").URI()}})
	k, err := identity.Load(env, "/id")
	if err != nil {
		t.Fatal(err)
	}
	changed := k.Trust()
	k.SetTrust(nil, nil)
	select {
	case <-changed:
		t.Fatal("the same trust is a change")
	default:
	}
	k.SetTrust([]byte("rubbish"), nil)
	if string(k.Bundle()) != string(ca.Bundle()) {
		t.Fatal("a bundle that cannot be read replaced one that can")
	}
	k.SetTrust(nil, []string{"store/m2", "abc123"})
	select {
	case <-changed:
	default:
		t.Fatal("a change was not told")
	}
	again, err := identity.Load(env, "/id")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range []string{"store/m2", "abc123"} {
		if !k.Denied(entry) || !again.Denied(entry) {
			t.Errorf("%s is not denied, now or after a restart", entry)
		}
	}
	if k.Denied("store/m1") || k.Denied("") {
		t.Error("somebody is denied who is not on the list")
	}
}

func TestRenewalIsAtARandomPointOf30To45PercentOfLife(t *testing.T) {
	low, high := math.Inf(1), 0.0
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			env := testx.Env(t)
			env.Rand = run.NewRand(seed)
			ca := identitytest.New(t, env, "c1")
			start := env.Now()
			k := ca.KeeperOf(t, env, identitytest.Leaf{URIs: []string{ca.ID(store, "m1").URI()}, NotBefore: start, NotAfter: start.Add(100 * time.Hour)})
			ctx, cancel := context.WithCancel(t.Context())
			err := k.Run(ctx, func(context.Context, []byte) ([]byte, []byte, error) {
				cancel()
				return nil, nil, errors.New("enough")
			})
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			at := env.Now().Sub(start).Hours()
			low, high = min(low, at), max(high, at)
		})
	}
	if low < 30 || high > 45.2 || high-low < 5 {
		t.Errorf("renewals came after %.1f to %.1f %% of life", low, high)
	}
}

func TestRenewalGoesOnForEverAndSurvivesFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		ca := identitytest.New(t, env, "c1")
		id := ca.ID(store, "m1")
		k := ca.Keeper(t, env, id)
		serials := map[string]bool{identity.Serial(k.Certificate()): true}
		ctx, cancel := context.WithTimeout(t.Context(), 30*24*time.Hour)
		defer cancel()
		fail := 3
		err := k.Run(ctx, func(_ context.Context, csr []byte) ([]byte, []byte, error) {
			if k.Expired() {
				t.Error("it came too late")
			}
			if fail--; fail > 0 {
				return nil, nil, errs.New(errs.Unavailable, "the CA is down")
			}
			fail = 3
			chain := ca.SignCSR(t, identitytest.Leaf{URIs: []string{id.URI()}}, csr)
			certs, err := identity.DecodeCertificates(chain)
			if err != nil {
				t.Fatal(err)
			}
			serials[identity.Serial(certs[0])] = true
			return chain, ca.Bundle(), nil
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		// 30 days at 21.6 to 32.4 hours each.
		if n := len(serials) - 1; n < 22 || n > 34 {
			t.Errorf("%d renewals in 30 days", n)
		}
	})
}

func TestALeafThatRanOutIsRenewedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		ca := identitytest.New(t, env, "c1")
		id := ca.ID(store, "m1")
		k := ca.Keeper(t, env, id)
		time.Sleep(5 * 24 * time.Hour)
		before := env.Now()
		ctx, cancel := context.WithCancel(t.Context())
		_ = k.Run(ctx, func(_ context.Context, csr []byte) ([]byte, []byte, error) {
			cancel()
			return ca.SignCSR(t, identitytest.Leaf{URIs: []string{id.URI()}}, csr), nil, nil
		})
		if k.Expired() || env.Now().Sub(before) > time.Second {
			t.Errorf("after %s it is still expired: %v", env.Now().Sub(before), k.Expired())
		}
	})
}

func TestAnAnswerThatIsNotOursIsRefused(t *testing.T) {
	env := testx.Env(t)
	ca, other := identitytest.New(t, env, "c1"), identitytest.New(t, env, "c1")
	id := ca.ID(store, "m1")
	hour := env.Now().Add(time.Hour)
	for name, answer := range map[string]func(csr []byte) (chain, bundle []byte){
		"another key": func([]byte) ([]byte, []byte) {
			key, err := identity.NewKey(env.Rand)
			if err != nil {
				t.Fatal(err)
			}
			return ca.Sign(t, identitytest.Leaf{URIs: []string{id.URI()}}, &key.PublicKey), nil
		},
		"another role": func(csr []byte) ([]byte, []byte) {
			return ca.SignCSR(t, identitytest.Leaf{URIs: []string{ca.ID(scheduler, "m1").URI()}}, csr), nil
		},
		"another cluster": func(csr []byte) ([]byte, []byte) {
			return ca.SignCSR(t, identitytest.Leaf{URIs: []string{"spiffe://c2/store/m1"}}, csr), nil
		},
		"another root": func(csr []byte) ([]byte, []byte) {
			return other.SignCSR(t, identitytest.Leaf{URIs: []string{id.URI()}}, csr), nil
		},
		"not valid yet": func(csr []byte) ([]byte, []byte) {
			return ca.SignCSR(t, identitytest.Leaf{URIs: []string{id.URI()}, NotBefore: hour}, csr), nil
		},
		"no bundle": func(csr []byte) ([]byte, []byte) {
			return ca.SignCSR(t, identitytest.Leaf{URIs: []string{id.URI()}}, csr), []byte("rubbish")
		},
		"nothing": func([]byte) ([]byte, []byte) { return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			k := ca.Keeper(t, env, id)
			before := k.Certificate()
			err := k.RenewOnce(t.Context(), func(_ context.Context, csr []byte) ([]byte, []byte, error) {
				chain, bundle := answer(csr)
				return chain, bundle, nil
			})
			if !errs.Is(err, errs.Invalid) || k.Certificate() != before {
				t.Fatalf("error %v, replaced %v", err, k.Certificate() != before)
			}
		})
	}
}

// A renewal whose answer was lost asks again with the same key: the CA may have certified it.
func TestALostAnswerIsAskedForWithTheSameKey(t *testing.T) {
	env := testx.Env(t)
	ca := identitytest.New(t, env, "c1")
	id := ca.ID(store, "m1")
	k := ca.Keeper(t, env, id)
	var keys []string
	for i := range 3 {
		err := k.RenewOnce(t.Context(), func(_ context.Context, csr []byte) ([]byte, []byte, error) {
			chain := ca.SignCSR(t, identitytest.Leaf{URIs: []string{id.URI()}}, csr)
			certs, err := identity.DecodeCertificates(chain)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, fmt.Sprint(certs[0].PublicKey))
			if i == 0 {
				return nil, nil, errs.New(errs.Unavailable, "lost")
			}
			return chain, nil, nil
		})
		if (err == nil) != (i > 0) {
			t.Fatal(err)
		}
	}
	if keys[0] != keys[1] || keys[1] == keys[2] {
		t.Error("want the same key after a lost answer, and another after that")
	}
}
