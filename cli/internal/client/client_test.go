package client_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/internal/contexts"
)

// authority signs whatever the caller's own identity asks for.
type authority struct {
	cav1.UnimplementedCertificateServiceServer
	tb testing.TB
	ca *identitytest.Authority
}

func (a *authority) Renew(ctx context.Context, req *cav1.RenewRequest) (*cav1.RenewResponse, error) {
	caller, _ := rpc.CallerOf(ctx)
	leaf := identitytest.Leaf{URIs: []string{caller.Principal.URI()}}
	return &cav1.RenewResponse{Chain: a.ca.SignCSR(a.tb, leaf, req.GetCsr()), Bundle: a.ca.Bundle()}, nil
}

func TestAnOldCertificateIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		ca := identitytest.New(t, env, "c1")
		stop := serve(t, env, ca)
		defer stop()
		id := ca.ID(authzv1.Role_ROLE_OPERATOR, "ada")
		ca.Write(t, env, "/ada", identitytest.Leaf{URIs: []string{id.URI()}})
		c := contexts.Context{Name: "default", Gateways: []string{"10.0.0.9", "10.0.0.1"}}
		first := serialOf(t, env)
		if due, err := client.RenewIfOld(t.Context(), env, c, "/ada"); due || err != nil {
			t.Errorf("a new certificate: %v, %v", due, err)
		}
		// Over the end of its life: a person who was away for long must not be locked out.
		time.Sleep(identitytest.Life + 24*time.Hour)
		if due, err := client.RenewIfOld(t.Context(), env, c, "/ada"); !due || err != nil {
			t.Errorf("an old certificate: %v, %v", due, err)
		}
		if serialOf(t, env) == first {
			t.Error("it is still the old one")
		}
		if names, err := env.Files.List("/ada"); err != nil || strings.Contains(strings.Join(names, " "), "next") {
			t.Errorf("%v, %v", names, err)
		}
	})
}

func serve(t *testing.T, env run.Env, ca *identitytest.Authority) (stop func()) {
	leaf := identitytest.Leaf{URIs: []string{ca.ID(authzv1.Role_ROLE_CA, "m1").URI()}, NotAfter: env.Now().Add(1000 * time.Hour)}
	s := rpc.NewServer(env, ca.KeeperOf(t, env, leaf))
	cav1.RegisterCertificateServiceServer(s.GRPC(), &authority{tb: t, ca: ca})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve([]string{"10.0.0.1:2377"})(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func serialOf(t *testing.T, env run.Env) string {
	t.Helper()
	k, err := identity.Load(env, "/ada")
	if err != nil {
		t.Fatal(err)
	}
	return identity.Serial(k.Certificate())
}

func TestAddresses(t *testing.T) {
	got, err := client.Addresses([]string{"10.0.0.1", "h:1", "https://10.0.0.2:2384/", "[fd00::1]", "fd00::2"})
	if want := "10.0.0.1:2384 h:1 10.0.0.2:2384 [fd00::1]:2384 [fd00::2]:2384"; strings.Join(got, " ") != want || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := client.Addresses(nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("no gateway: %v", err)
	}
}
