package machine_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"

	"github.com/shoalproject/shoal/cli/internal/machine"
)

// authority is a CA at 10.0.0.9 that has a token of each kind.
type authority struct {
	cav1.UnimplementedCertificateServiceServer
	h               *host
	worker, manager enroll.Token

	mu    sync.Mutex // guards all below
	calls int
	busy  int // so many calls come too soon
}

func (h *host) authority(t *testing.T) (ca *authority, stop func()) {
	t.Helper()
	ca = &authority{h: h, worker: enroll.NewToken(h.env.Rand, h.ca.Root.Raw), manager: enroll.NewToken(h.env.Rand, h.ca.Root.Raw)}
	s := rpc.NewServer(h.env, h.ca.Keeper(t, h.env, h.ca.ID(authzv1.Role_ROLE_CA, "m0")))
	cav1.RegisterCertificateServiceServer(s.GRPC(), ca)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve([]string{"10.0.0.9:2377"})(ctx) }()
	synctest.Wait()
	return ca, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func (a *authority) GetRoot(context.Context, *cav1.GetRootRequest) (*cav1.GetRootResponse, error) {
	return &cav1.GetRootResponse{Bundle: a.h.ca.Bundle(), Now: timestamppb.New(a.h.env.Now())}, nil
}

func (a *authority) Join(_ context.Context, req *cav1.JoinRequest) (*cav1.JoinResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	if a.busy > 0 {
		a.busy--
		return nil, errs.New(errs.Exhausted, "too many tries")
	}
	resp := &cav1.JoinResponse{ClusterId: "c1", Bundle: a.h.ca.Bundle(), Directory: &cav1.Directory{}}
	for _, r := range req.GetRequests() {
		node := r.GetRole() == authzv1.Role_ROLE_AGENT || r.GetRole() == authzv1.Role_ROLE_MESHPROXY
		switch {
		case req.GetToken() != a.worker.String() && req.GetToken() != a.manager.String():
			return nil, errs.New(errs.Denied, "the token is wrong")
		case !node && req.GetToken() == a.worker.String():
			return nil, errs.New(errs.Denied, "this token lets in workers")
		}
		var t testing.T
		leaf := identitytest.Leaf{URIs: []string{a.h.ca.ID(r.GetRole(), req.GetMachineId()).URI()}}
		resp.Certificates = append(resp.Certificates, &cav1.IssuedCertificate{Role: r.GetRole(), Chain: a.h.ca.SignCSR(&t, leaf, r.GetCsr())})
	}
	return resp, nil
}

func TestTheTokenDecidesWhatAMachineBecomes(t *testing.T) {
	for _, kind := range []string{"worker", "manager"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				ca, stop := h.authority(t)
				defer stop()
				token, units := ca.worker, 2
				if kind == "manager" {
					token, units = ca.manager, 7
				}
				ca.busy = 2 // a CA that lets one try a second through is asked again
				done, err := h.machine().Join(t.Context(), machine.Join{Token: token.String(), Address: "10.0.0.9"})
				if err != nil || done.Manager != (kind == "manager") || done.Machine == "" {
					t.Fatalf("%+v, %v", done, err)
				}
				if len(h.active) != units || len(h.enabled) != units {
					t.Errorf("active %v, enabled %v", h.active, h.enabled)
				}
				configs, _ := h.env.Files.List("/etc/shoal")
				folders, _ := h.env.Files.List("/var/lib/shoal")
				if len(configs) != units || len(folders) != units+1 {
					t.Errorf("configs %v, folders %v", configs, folders)
				}
				calls := ca.calls
				_, err = h.machine().Join(t.Context(), machine.Join{Token: token.String(), Address: "10.0.0.9"})
				if !errs.Is(err, errs.Precondition) || ca.calls != calls || len(h.active) != units {
					t.Errorf("join twice: %v after %d calls", err, ca.calls-calls)
				}
			})
		})
	}
}

func TestARefusedJoinLeavesNothingButTheMachineID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		ca, stop := h.authority(t)
		defer stop()
		for token, want := range map[string]string{
			enroll.NewToken(h.env.Rand, h.ca.Root.Raw).String():          "the token is wrong",
			enroll.NewToken(h.env.Rand, []byte("another root")).String(): "is not the one in the token",
			"SHOAL-1-abc": "it is not whole",
			"":            "it is empty",
		} {
			_, err := h.machine().Join(t.Context(), machine.Join{Token: token, Address: "10.0.0.9:2377"})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, wanted %q", token, err, want)
			}
		}
		if _, err := h.machine().Join(t.Context(), machine.Join{Token: ca.worker.String(), Address: "10.0.0.8:2377"}); !errs.Is(err, errs.Unavailable) {
			t.Errorf("a dead address: %v", err)
		}
		if left := slices.DeleteFunc(h.files(t), func(f string) bool { return f == "/var/lib/shoal/machine-id" }); len(left) > 0 || len(h.enabled) > 0 {
			t.Errorf("%v stayed, enabled %v", left, h.enabled)
		}
	})
}

func TestAJoinWhoseProcessesDoNotStartIsTakenBackAndCanBeTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		ca, stop := h.authority(t)
		defer stop()
		h.fail = "systemctl start shoal-agent"
		req := machine.Join{Token: ca.worker.String(), Address: "10.0.0.9:2377"}
		if _, err := h.machine().Join(t.Context(), req); err == nil || !strings.Contains(err.Error(), "start shoal-agent: it did not work") {
			t.Errorf("got %v", err)
		}
		configs, _ := h.env.Files.List("/etc/shoal")
		if len(h.enabled)+len(h.active)+len(configs) > 0 {
			t.Errorf("enabled %v, active %v, configs %v", h.enabled, h.active, configs)
		}
		// What had started meanwhile has made interfaces and rules; it takes them away once it is stopped.
		want := []string{"systemctl disable --now shoal-agent shoal-meshproxy", "shoal-agent reset", "shoal-meshproxy reset"}
		if diff := cmp.Diff(want, h.calls[max(len(h.calls)-len(want), 0):]); diff != "" {
			t.Error(diff)
		}
		h.fail = ""
		if _, err := h.machine().Join(t.Context(), req); err != nil || len(h.active) != 2 {
			t.Errorf("second try: %v, active %v", err, h.active)
		}
	})
}

func TestAJoinCutWhileUnitsWereEnabledIsFinishedByTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		ca, stop := h.authority(t)
		defer stop()
		req := machine.Join{Token: ca.worker.String(), Address: "10.0.0.9:2377"}
		if _, err := h.machine().Join(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		delete(h.enabled, "shoal-agent") // the power went between two units
		delete(h.active, "shoal-agent")
		if _, err := h.machine().Join(t.Context(), req); err != nil || !h.enabled["shoal-agent"] || !h.active["shoal-agent"] {
			t.Errorf("joining again: %v, enabled %v, active %v", err, h.enabled, h.active)
		}
		if _, err := h.machine().Join(t.Context(), req); !errs.Is(err, errs.Precondition) {
			t.Errorf("a whole machine joins again: %v", err)
		}
	})
}
