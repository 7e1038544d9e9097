package process_test

import (
	"context"
	"path"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

const (
	caRole    = authzv1.Role_ROLE_CA
	storeRole = authzv1.Role_ROLE_STORE
	dispRole  = authzv1.Role_ROLE_DISPATCHER
)

// caService renews whoever calls.
type caService struct {
	cav1.UnimplementedCertificateServiceServer
	t  *testing.T
	ca *identitytest.Authority
	n  atomic.Int64
}

func (s *caService) Renew(ctx context.Context, req *cav1.RenewRequest) (*cav1.RenewResponse, error) {
	caller, _ := rpc.CallerOf(ctx)
	s.n.Add(1)
	return &cav1.RenewResponse{
		Chain:  s.ca.SignCSR(s.t, identitytest.Leaf{URIs: []string{caller.Principal.URI()}}, req.GetCsr()),
		Bundle: s.ca.Bundle(),
		Directory: &cav1.Directory{Entries: []*cav1.DirectoryEntry{
			{Role: dispRole, MachineId: "m9", Addresses: []string{"d:1"}},
		}},
	}, nil
}

// install writes what a join leaves of a process: identity and directory.
func install(t *testing.T, env run.Env, ca *identitytest.Authority, role authzv1.Role, folder string) config.Base {
	t.Helper()
	ca.Write(t, env, path.Join(folder, "identity"), identitytest.Leaf{URIs: []string{ca.ID(role, "m1").URI()}})
	dir := &cav1.Directory{Entries: []*cav1.DirectoryEntry{{Role: caRole, MachineId: "m1", Addresses: []string{"m1:2377"}}}}
	if err := directory.Write(env.Files, path.Join(folder, "directory.json"), dir); err != nil {
		t.Fatal(err)
	}
	return config.Base{Data: folder, Advertise: []string{"m1"}}
}

// Everything was off for five days: a ca and a store whose certificates have run out come back by themselves.
func TestProcessesComeBackAfterFiveDaysOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		ca := identitytest.New(t, env, "c1")
		bases := map[authzv1.Role]config.Base{}
		for _, role := range []authzv1.Role{caRole, storeRole} {
			bases[role] = install(t, env, ca, role, "/"+role.String())
		}
		time.Sleep(5 * 24 * time.Hour)

		ctx, cancel := context.WithCancel(t.Context())
		g := run.NewGroup(env.Log)
		var all []*process.Process
		service := &caService{t: t, ca: ca}
		for role, port := range map[authzv1.Role]int{caRole: 2377, storeRole: 2381} {
			env := env
			env.Metrics = testx.Env(t).Metrics
			p, err := process.Open(env, bases[role], role, port)
			if err != nil {
				t.Fatal(err)
			}
			if !p.Keeper.Expired() {
				t.Fatal("the certificate has not run out")
			}
			if role == caRole {
				cav1.RegisterCertificateServiceServer(p.Server.GRPC(), service)
			}
			p.Go(g)
			all = append(all, p)
		}
		done := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, g.Wait(ctx) })
		time.Sleep(10 * time.Second)
		for _, p := range all {
			if p.Keeper.Expired() || len(p.Directory.Entries(dispRole)) != 1 {
				t.Errorf("%s: expired %v, directory %v", p.ID, p.Keeper.Expired(), p.Directory.All())
			}
		}
		time.Sleep(5 * 24 * time.Hour)
		for _, p := range all {
			if p.Keeper.Expired() {
				t.Errorf("%s: expired", p.ID)
			}
		}
		if n := service.n.Load(); n < 8 || n > 16 {
			t.Errorf("%d renewals", n)
		}
		cancel()
		if r := <-done; r.Err != nil {
			t.Error(r.Err)
		}
	})
}

func TestOpenRefusesWhatIsNotThisProcess(t *testing.T) {
	env := testx.Env(t)
	ca := identitytest.New(t, env, "c1")
	base := install(t, env, ca, caRole, "/ca")
	if _, err := process.Open(env, base, storeRole, 2381); !errs.Is(err, errs.Invalid) {
		t.Errorf("another role: %v", err)
	}
	if _, err := process.Open(env, config.Base{Data: "/nowhere"}, storeRole, 2381); !errs.Is(err, errs.NotFound) {
		t.Errorf("no identity: %v", err)
	}
	p, err := process.Open(env, base, caRole, 2377)
	if err != nil || len(p.Addresses()) != 1 || p.Addresses()[0] != "m1:2377" || p.Path("x") != "/ca/x" {
		t.Errorf("%v, %v", p, err)
	}
}
