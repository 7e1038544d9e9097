package knock_test

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/knock"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/silence"
)

// rig is a machine a among others, some of which are off: who dials those hears nothing.
type rig struct {
	run.Network

	mu    sync.Mutex // guards all below
	off   map[string]bool
	out   []string
	why   string
	dials int
}

func (r *rig) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	r.mu.Lock()
	r.dials++
	off := r.off[address]
	r.mu.Unlock()
	if off {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return r.Network.Dial(ctx, network, address) // nobody listens: refused, by who is there
}

func (r *rig) LeaveOut(nodes map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out = slices.Sorted(maps.Keys(nodes))
}

func (r *rig) Set(_ string, _ bool, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why = why
}

func (r *rig) Told() *mesh.Model {
	tables := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{}, Full: true}
	svc := &dispatcherv1.MeshService{ServiceId: "s"}
	for _, id := range []string{"a", "b", "c"} {
		tables.Machines = append(tables.Machines, &dispatcherv1.MeshMachine{NodeId: id, Addresses: []string{"10.0.0." + id, "fd00::" + id}, MeshPort: 2385})
		svc.Endpoints = append(svc.Endpoints, &dispatcherv1.MeshEndpoint{TaskId: "t" + id, NodeId: id, Addresses: []string{"10.128.0.1"}})
	}
	// One that has not said where it listens can't be knocked at, and is not silent.
	tables.Machines = append(tables.Machines, &dispatcherv1.MeshMachine{NodeId: "d", Addresses: []string{"10.0.0.d"}})
	svc.Endpoints = append(svc.Endpoints, &dispatcherv1.MeshEndpoint{TaskId: "td", NodeId: "d", Addresses: []string{"10.128.0.1"}})
	tables.Services = append(tables.Services, svc)
	var m *mesh.Model
	m, err := m.Apply(tables)
	if err != nil {
		return nil
	}
	return m
}

func (r *rig) power(on bool, addresses ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range addresses {
		r.off[a] = !on
	}
}

func (r *rig) left() (out, why string, dials int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.out, " "), r.why, r.dials
}

// TestSilentMachineIsLeftOut: within four seconds of stale tables, though it is asked at two addresses; and it is back within
// two when one of them answers.
func TestSilentMachineIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		r := &rig{Network: env.Net, off: map[string]bool{}}
		env.Net = r
		l := knock.New(env, "a", r, r)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		l.News(silence.Fresh)
		r.power(false, "10.0.0.b:2385", "[fd00::b]:2385")
		time.Sleep(10 * time.Minute)
		if out, _, dials := r.left(); out != "" || dials > 0 {
			t.Errorf("left out %q after %d knocks while the tables are the newest", out, dials)
		}
		l.News(silence.Stale)
		time.Sleep(4 * time.Second)
		if out, why, _ := r.left(); out != "b" || !strings.Contains(why, "no answer from 10.0.0.b") {
			t.Errorf("left out %q, said %q; want b", out, why)
		}
		r.power(true, "[fd00::b]:2385")
		time.Sleep(2 * time.Second)
		if out, why, _ := r.left(); out != "" || why != "" {
			t.Errorf("left out %q, said %q, though it answers", out, why)
		}
	})
}
