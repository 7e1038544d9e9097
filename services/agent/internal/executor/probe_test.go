package executor

import (
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/look"
	"github.com/shoalproject/shoal/services/agent/internal/network"
	"github.com/shoalproject/shoal/services/agent/internal/reconcile/reconciletest"
)

// TestConforms: real containers keep what hollow ones promise.
func TestConforms(t *testing.T) {
	r := newRig(t)
	reconciletest.Conform(t, reconciletest.Rig{
		Executor: r.Executor, Well: []string{"/probe", "exit", "0"}, Sick: []string{"/probe", "sick"}, Long: []string{"/probe", "tick"},
		Lasting: func(id string) container.Spec { return r.spec(id) },
		Ending:  func(id string) container.Spec { return r.spec(id, "exit", "3") },
	})
}

// TestLooks: a look by command, by HTTP and by TCP, in a real container's network; and one that takes too long is killed.
func TestLooks(t *testing.T) {
	r := newRig(t)
	k := network.New(filepath.Join(filepath.Dir(r.config), "run"))
	s := r.spec("looked.0", "serve")
	box, err := k.Make(t.Context(), container.Wiring{ID: s.ID, Hostname: s.Hostname})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := k.Remove(context.Background(), s.ID); err != nil {
			t.Error(err)
		}
	}()
	s.Sandbox = box
	r.run(t, s)
	once := func(p *typesv1.Probe) (bool, string, error) {
		p.Timeout = durationpb.New(2 * time.Second)
		return look.Once(t.Context(), r.Executor, k, s.ID, p, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	}
	until(t, "it serves", func() bool {
		ok, _, _ := once(&typesv1.Probe{Tcp: &typesv1.TCPProbe{Port: 8080}})
		return ok
	})
	for _, tc := range []struct {
		name  string
		probe *typesv1.Probe
		ok    bool
		said  string
	}{
		{"page", &typesv1.Probe{Http: &typesv1.HTTPProbe{Port: 8080, Path: "/well"}}, true, "200"},
		{"bad page", &typesv1.Probe{Http: &typesv1.HTTPProbe{Port: 8080}}, false, "503"},
		{"closed port", &typesv1.Probe{Tcp: &typesv1.TCPProbe{Port: 8081}}, false, "refused"},
		{"command", &typesv1.Probe{Test: []string{"CMD", "/probe", "exit", "0"}}, true, ""},
		{"bad command", &typesv1.Probe{Test: []string{"CMD", "/probe", "sick"}}, false, "not well"},
		{"hanging command", &typesv1.Probe{Test: []string{"CMD", "/probe", "deaf"}}, false, "no end within its timeout"},
		{"no command", &typesv1.Probe{Test: []string{"CMD", "/none"}}, false, "no such file"},
	} {
		ok, said, err := once(tc.probe)
		if ok != tc.ok || !strings.Contains(said, tc.said) || err != nil {
			t.Errorf("%s: %v, %q, %v", tc.name, ok, said, err)
		}
	}
}
