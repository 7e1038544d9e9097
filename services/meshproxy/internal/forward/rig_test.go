package forward_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	"github.com/shoalproject/shoal/services/meshproxy/internal/forward"
	"github.com/shoalproject/shoal/services/meshproxy/internal/hop/hoptest"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// rig is two machines with a forwarder each, "a" and "b", on this machine's loopback. Clients ask a.
type rig struct {
	t     *testing.T
	ctx   context.Context
	stop  context.CancelFunc // as when both processes are told to end
	a, b  *forward.Forwarder
	door  net.Listener // of b's meshproxy
	peers map[string][]string
	dials atomic.Int64
	keys  *hoptest.Keys // nil: links are in the clear

	mu    sync.Mutex // guards conns
	conns []net.Conn // that b has accepted, below TLS
}

// links is how machines speak to each other.
type links int

const (
	byLoops    links = iota // by TLS, as they do
	inTheClear              // by what no loop takes; it is carried as in the simulation
)

// place is where a task runs, and how it is reached.
type place struct {
	name, node string
	links      links
}

func places() []place {
	return []place{{"a", "a", byLoops}, {"b", "b", byLoops}, {"b in the clear", "b", inTheClear}}
}

// kinds has the same hold for links that the loops carry, and for others.
func kinds(t *testing.T, promise func(t *testing.T, r *rig)) {
	t.Run("links by TLS", func(t *testing.T) { promise(t, rigOf(t, byLoops)) })
	t.Run("in the clear", func(t *testing.T) { promise(t, rigOf(t, inTheClear)) })
}

// newRig has links by TLS.
func newRig(t *testing.T) *rig {
	t.Helper()
	return rigOf(t, byLoops)
}

func rigOf(t *testing.T, how links) *rig {
	t.Helper()
	return rigOn(t, machine(t), how)
}

// newRigOn has a be on a machine that something is the matter with.
func newRigOn(t *testing.T, a run.Env) *rig {
	t.Helper()
	return rigOn(t, a, byLoops)
}

func rigOn(t *testing.T, a run.Env, how links) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &rig{t: t, ctx: ctx, stop: cancel}
	var err error
	if r.door, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if how == byLoops {
		r.keys = hoptest.New(t)
	}
	dial := func(ctx context.Context, _, address string) (net.Conn, error) {
		r.dials.Add(1)
		var d net.Dialer
		raw, err := d.DialContext(ctx, "tcp", address)
		if err != nil || r.keys == nil {
			return raw, err
		}
		return r.keys.Client(ctx, raw)
	}
	constant := func() <-chan struct{} { return nil } // trust never changes here
	r.a, r.b = forward.New(a, "a", dial, constant), forward.New(machine(t), "b", dial, constant)
	r.peers = map[string][]string{"b": {r.door.Addr().String()}}
	var done sync.WaitGroup
	for _, f := range []*forward.Forwarder{r.a, r.b} {
		done.Go(func() {
			if err := f.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	done.Go(func() {
		for {
			conn, err := r.door.Accept()
			if err != nil {
				return
			}
			done.Go(func() { r.accept(conn) })
		}
	})
	t.Cleanup(func() { cancel(); r.door.Close(); done.Wait() })
	return r
}

// accept serves a connection to b.
func (r *rig) accept(conn net.Conn) {
	raw := conn
	if r.keys != nil {
		over, err := r.keys.Server(r.ctx, raw)
		if err != nil {
			return
		}
		conn, raw = over, over.(*tls.Conn).NetConn()
	}
	r.mu.Lock()
	r.conns = append(r.conns, raw)
	r.mu.Unlock()
	r.b.Accept(r.ctx, conn, "a")
}

func machine(t *testing.T) run.Env {
	env := testx.Env(t)
	env.Net = nil
	return env.OrMachine("test")
}

// apply puts these ports in force on both machines.
func (r *rig) apply(ports ...mesh.Port) []forward.Unbound {
	anybody := func([]mesh.Listener) error { return nil } // there are no tables
	_, err := r.b.Apply(r.ctx, onlyLocal(ports, "b"), nil, anybody)
	unbound, err2 := r.a.Apply(r.ctx, ports, r.peers, anybody)
	if err := errors.Join(err, err2); err != nil {
		r.t.Error(err)
	}
	return unbound
}

// onlyLocal is what b has: the same ports under other numbers, since both are on one machine here.
func onlyLocal(ports []mesh.Port, node string) (out []mesh.Port) {
	for _, p := range ports {
		p.Port = 0
		var own []mesh.Backend
		for _, b := range p.Backends {
			if b.Node == node {
				own = append(own, b)
			}
		}
		p.Backends = own
		out = append(out, p)
	}
	return out
}

// task is a server that says its name and closes, unless it is given something else to do.
func (r *rig) task(name, node string, serve func(net.Conn)) mesh.Backend {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	if serve == nil {
		serve = func(c net.Conn) { io.WriteString(c, name); c.Close() }
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { serve(c) })
		}
	})
	r.t.Cleanup(func() { l.Close(); conns.Wait() })
	return mesh.Backend{Task: name, Node: node, Address: netip.MustParseAddrPort(l.Addr().String())}
}

// packets is a UDP server that echoes with its name before it.
func (r *rig) packets(name, node string) mesh.Backend {
	r.t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 70000)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(append([]byte(name+":"), buf[:n]...), from)
		}
	}()
	r.t.Cleanup(func() { pc.Close(); <-done })
	return mesh.Backend{Task: name, Node: node, Address: netip.MustParseAddrPort(pc.LocalAddr().String())}
}

// dead is a task at an address where nobody listens.
func (r *rig) dead(name, node string) mesh.Backend {
	return mesh.Backend{Task: name, Node: node, Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(r.t, "tcp"))}
}

func freePort(t *testing.T, network string) uint16 {
	t.Helper()
	if network == "udp" {
		pc, err := net.ListenPacket("udp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		return netip.MustParseAddrPort(pc.LocalAddr().String()).Port()
	}
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

func publish(t *testing.T, network string, backends ...mesh.Backend) mesh.Port {
	return mesh.Port{Listener: mesh.Listener{Network: network, Port: freePort(t, network)}, Service: "web", Backends: backends}
}

func at(host string, p mesh.Port) string { return net.JoinHostPort(host, fmt.Sprint(p.Port)) }

// ask connects and reads to the end.
func ask(address string) (string, error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	data, err := io.ReadAll(c)
	return string(data), err
}
