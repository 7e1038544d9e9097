package tables_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/forward"
	"github.com/shoalproject/shoal/services/meshproxy/internal/hop/hoptest"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// modes are how the machines of a world carry published ports. Zero: by the kernel, without a meshproxy beside it.
type modes struct {
	userSpace  string // the names of machines whose kernel lacks the parts
	ctx        context.Context
	forwarders map[string]*forward.Forwarder
}

func (m modes) know(self *mesh.Self) {
	self.UserSpace, self.Transparent = strings.Contains(m.userSpace, self.Node), m.forwarders != nil
}

func (m modes) apply(t testing.TB, name string, p *mesh.Published, peers map[string][]string) {
	t.Helper()
	if f := m.forwarders[name]; f != nil {
		unbound, err := f.Apply(m.ctx, p.Ports(), peers, func([]mesh.Listener) error { return nil })
		if err != nil {
			t.Error(err)
		}
		for _, u := range unbound {
			t.Errorf("%s of %s not open: %v", u.Listener, name, u.Err)
		}
	}
}

// within is a machine's network from within its namespace: a socket stays where it was made.
type within struct {
	h *host
	run.Network
}

func (n within) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	return l, n.h.try(func() (err error) { l, err = n.Network.Listen(ctx, network, address); return err })
}

func (n within) ListenPacket(ctx context.Context, network, address string) (pc net.PacketConn, err error) {
	return pc, n.h.try(func() (err error) { pc, err = n.Network.ListenPacket(ctx, network, address); return err })
}

func (n within) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	return c, n.h.try(func() (err error) { c, err = n.Network.Dial(ctx, network, address); return err })
}

func (n within) DialFrom(ctx context.Context, network string, to netip.AddrPort, source netip.Addr) (c net.Conn, err error) {
	return c, n.h.try(func() (err error) { c, err = run.DialFrom(ctx, n.Network, network, to, source); return err })
}

func (n within) Connect(to netip.AddrPort, source netip.Addr) (fd int, err error) {
	return fd, n.h.try(func() (err error) { fd, err = run.Connect(n.Network, to, source); return err })
}

// proxied puts a meshproxy's forwarder on each machine.
func (w *world) proxied(userSpace string) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	var done sync.WaitGroup
	w.modes = modes{userSpace: userSpace, ctx: ctx, forwarders: map[string]*forward.Forwarder{}}
	keys := hoptest.New(w.t)
	for name, h := range w.machines {
		env := testx.Env(w.t)
		env.Net = within{h, run.Env{}.OrMachine("test").Net}
		dial := func(ctx context.Context, _, address string) (net.Conn, error) {
			raw, err := env.Net.Dial(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			return keys.Client(ctx, raw)
		}
		f := forward.New(env, name, dial, func() <-chan struct{} { return nil })
		f.Transparent()
		door, err := env.Net.Listen(ctx, "tcp", ":2385")
		if err != nil {
			w.t.Fatal(err)
		}
		context.AfterFunc(ctx, func() { door.Close() })
		done.Go(func() {
			if err := f.Run(ctx); err != nil {
				w.t.Error(err)
			}
		})
		done.Go(func() {
			for {
				c, err := door.Accept()
				if err != nil {
					return
				}
				done.Go(func() {
					if conn, err := keys.Server(ctx, c); err == nil { // else its dialler has given up
						f.Accept(ctx, conn, "peer")
					}
				})
			}
		})
		w.modes.forwarders[name] = f
	}
	w.t.Cleanup(func() { cancel(); done.Wait() })
	told := &dispatcherv1.EndpointsResponse{}
	for name, n := range map[string]string{"a": "1", "b": "2", "c": "3"} {
		m := machineOf(name, n)
		if m.Dataplane = typesv1.Dataplane_DATAPLANE_KERNEL; strings.Contains(userSpace, name) {
			m.Dataplane = typesv1.Dataplane_DATAPLANE_USERSPACE
		}
		told.Machines = append(told.Machines, m)
	}
	w.tell(told)
}

// The ports of the suite, tcp and udp, with how each leads. Tasks are a1 and b1.
func suite(plane typesv1.Dataplane) *dispatcherv1.MeshService {
	s := serviceOf("a1", "b1")
	s.Ports = nil
	for i, policy := range []typesv1.TrafficPolicy{
		typesv1.TrafficPolicy_TRAFFIC_POLICY_CLUSTER, typesv1.TrafficPolicy_TRAFFIC_POLICY_LOCAL,
		typesv1.TrafficPolicy_TRAFFIC_POLICY_PREFER_LOCAL, typesv1.TrafficPolicy_TRAFFIC_POLICY_UNSPECIFIED,
	} {
		for _, protocol := range []typesv1.Protocol{typesv1.Protocol_PROTOCOL_TCP, typesv1.Protocol_PROTOCOL_UDP} {
			p := &typesv1.PortConfig{Protocol: protocol, PublishedPort: uint32(30010 + i), TargetPort: 8003, TrafficPolicy: policy, Dataplane: plane}
			if policy == typesv1.TrafficPolicy_TRAFFIC_POLICY_UNSPECIFIED {
				p.SessionAffinity = typesv1.SessionAffinity_SESSION_AFFINITY_CLIENT_IP
			}
			s.Ports = append(s.Ports, p)
		}
	}
	for number, at := range map[uint32]string{boundPort(true): "198.51.100.0/24", boundPort(false): "2001:db8::/64"} {
		s.Ports = append(s.Ports, &typesv1.PortConfig{PublishedPort: number, TargetPort: 8003, HostIp: at, Dataplane: plane})
	}
	return s
}

// boundPort answers on machines' addresses of one family alone, by TCP.
func boundPort(is4 bool) uint32 { return map[bool]uint32{true: 30016, false: 30017}[is4] }

// answerers are the tasks that may answer at an entry.
func answerers(policy, entry string) []string {
	own := map[string][]string{"a": {"a1"}, "b": {"b1"}}[entry]
	switch {
	case policy == "local", policy == "prefer-local" && own != nil:
		return own
	}
	return []string{"a1", "b1"}
}

// TestModesBehaveAlike is the conformance suite of what carries published ports: the kernel, the meshproxy because the kernel
// lacks the parts, the meshproxy because the port says so, and both where one machine's kernel lacks the parts. Every pair of a caller and an entry, both protocols and families,
// each policy: who answers, and whom the task takes for its caller.
func TestModesBehaveAlike(t *testing.T) {
	places := map[string]string{} // by affinity, which is the same in all modes
	for _, mode := range []string{"kernel", "userspace", "port", "mixed"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			plane := typesv1.Dataplane_DATAPLANE_UNSPECIFIED
			if mode == "port" {
				plane = typesv1.Dataplane_DATAPLANE_USERSPACE
			}
			w.proxied(map[string]string{"userspace": "abc", "mixed": "b"}[mode])
			for _, name := range []string{"a1", "b1"} {
				answer(t, w.containers[name], ":8003", name+" ")
				servePackets(t, w.containers[name], ":8003", name)
				// A fresh link loses its first packet, for which the meshproxy would take another task.
				if got, err := ask(w.machines[name[:1]], net.JoinHostPort(inside(name, false), "8003")); err != nil {
					t.Fatalf("%s by its own machine: %q, %v", name, got, err)
				}
			}
			w.tell(&dispatcherv1.EndpointsResponse{Services: []*dispatcherv1.MeshService{suite(plane)}})
			w.administrator(t)
			for _, entry := range []string{"a", "b", "c"} {
				for _, is4 := range []bool{true, false} {
					for _, network := range []string{"tcp", "udp"} {
						w.matrix(t, mode, entry, network, is4, places)
						if t.Failed() {
							t.FailNow() // what is wrong in one part is so in others, and each try takes its time
						}
					}
				}
			}
		})
	}
}

// administrator has the chain SHOAL-USER of machine a refuse the client alone at one port, and a container alone at another: by what they
// dialled and with the addresses that they have, whoever carries the port. Nothing else is refused.
func (w *world) administrator(t *testing.T) {
	t.Helper()
	nft := func(args string) {
		t.Helper()
		w.machines["a"].do(func() error {
			out, err := exec.CommandContext(t.Context(), "nft", strings.Fields(args)...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("nft %s: %w: %s", args, err, out)
			}
			return err
		})
	}
	for _, is4 := range []bool{true, false} {
		family := map[bool]string{true: "ip", false: "ip6"}[is4]
		for _, network := range []string{"tcp", "udp"} {
			nft(fmt.Sprintf("add rule inet shoal SHOAL-USER %s daddr %s %s saddr %s %s dport 30010 reject", family, wire("1", is4), family, wire("9", is4), network))
			nft(fmt.Sprintf("add rule inet shoal SHOAL-USER %s saddr %s %s dport 30012 reject", family, inside("a2", is4), network))
		}
		nft(fmt.Sprintf("add rule inet shoal SHOAL-USER %s saddr %s tcp dport %d reject", family, wire("9", is4), boundPort(is4)))
	}
	for _, is4 := range []bool{true, false} {
		for _, network := range []string{"tcp", "udp"} {
			for _, tc := range []struct {
				who     string
				from    *host
				entry   string
				port    int
				refused bool
			}{
				{"the client", w.client, wire("1", is4), 30010, true},
				{"the client at another port", w.client, wire("1", is4), 30012, false},
				{"the client at a port bound to an address", w.client, wire("1", is4), int(boundPort(is4)), true},
				{"a container at a port bound to an address", w.containers["a2"], wire("1", is4), int(boundPort(is4)), false},
				{"the client at another machine", w.client, wire("2", is4), 30010, false},
				{"a container", w.containers["a2"], wire("1", is4), 30012, true},
				{"a container at another port", w.containers["a2"], wire("1", is4), 30010, false},
				{"the machine itself", w.machines["a"], map[bool]string{true: "127.0.0.1", false: "::1"}[is4], 30010, false},
			} {
				if tc.port == int(boundPort(is4)) && network != "tcp" {
					continue
				}
				answer, err := askNamed(tc.from, network, net.JoinHostPort(tc.entry, fmt.Sprint(tc.port)), tc.refused)
				if (err != nil || answer == "") != tc.refused {
					t.Errorf("%s, of whom the administrator says refused=%t, asks %s port %d of %s: %q, %v", tc.who, tc.refused, network, tc.port, tc.entry, answer, err)
				}
			}
		}
	}
	nft("flush chain inet shoal SHOAL-USER")
}

// matrix has all callers ask one entry.
func (w *world) matrix(t *testing.T, mode, entry, network string, is4 bool, places map[string]string) {
	t.Helper()
	callers := map[string]*host{"client": w.client, "machine": w.machines[entry], "loopback": w.machines[entry]}
	for _, name := range []string{"a1", "a2", "b1", "c1"} {
		callers[name] = w.containers[name]
	}
	for i, policy := range []string{"cluster", "local", "prefer-local", "affinity"} {
		for caller, from := range callers {
			to := wire(map[string]string{"a": "1", "b": "2", "c": "3"}[entry], is4)
			if caller == "loopback" {
				to = map[bool]string{true: "127.0.0.1", false: "::1"}[is4]
			}
			to = net.JoinHostPort(to, fmt.Sprint(30010+i))
			where := fmt.Sprintf("%s asks %s by %s %s, policy %s", caller, entry, network, to, policy)
			wanted := answerers(policy, entry)
			var got []string
			place := caller + fmt.Sprint(is4)
			if caller != "client" { // containers and machines have another address at another entry
				place += entry
			}
			enough := func() bool {
				switch n := len(got); {
				case n < 2:
					return false
				case policy == "affinity":
					return got[n-2] == got[n-1] && (places[place] == "" || places[place] == got[n-1])
				}
				return hasAll(got, wanted)
			}
			// On a machine that is slow for a second a task may rest, and is left out for two; and each answer may take as long.
			for deadline := time.Now().Add(10 * time.Second); len(got) < 2 || !enough() && !t.Failed() && time.Now().Before(deadline); {
				answer, err := askNamed(from, network, to, len(wanted) == 0)
				if (err != nil) != (policy == "local" && entry == "c") {
					t.Errorf("%s: %q, %v", where, answer, err)
				}
				if err != nil {
					break
				}
				name, seen, _ := strings.Cut(answer, " ")
				at, _ := netip.ParseAddrPort(seen)
				if want := w.known(mode, caller, entry, name, is4); at.Addr().Unmap().String() != want {
					t.Errorf("%s: %s took it for %s, want %s", where, name, at.Addr(), want)
				}
				got = append(got, name)
			}
			switch {
			case len(got) == 0:
			case policy == "affinity" && caller == "loopback": // by the meshproxy in all modes
			case policy == "affinity":
				if !enough() {
					t.Errorf("%s: led to %v, once to %s", where, got, places[place])
				}
				places[place] = got[len(got)-1]
			case !hasAll(got, wanted) || !hasAll(wanted, got):
				t.Errorf("%s: %v answered, want %v", where, got, wanted)
			}
		}
	}
}

// hasAll says that all who are wanted are among those that there are.
func hasAll(there, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(w string) bool { return !slices.Contains(there, w) })
}

// known is whom a task takes for its caller.
func (w *world) known(mode, caller, entry, task string, is4 bool) string {
	machine := map[string]string{"a": "1", "b": "2", "c": "3"}
	switch home := caller[:1]; {
	case caller == "client":
		return wire("9", is4)
	case caller == "machine":
		return wire(machine[entry], is4)
	case caller == "loopback": // it means nothing elsewhere: the task's machine speaks
		return gatewayOf(task[:1], is4)
	case caller == task && entry == home: // to itself: its gateway speaks for it
		return gatewayOf(home, is4)
	case entry == home:
		return inside(caller, is4)
	case task[:1] == home && mode == "kernel": // out as its machine, and back to the machine that it came from
		return gatewayOf(entry, is4)
	default:
		return wire(machine[home], is4)
	}
}

func askNamed(h *host, network, address string, refused bool) (string, error) {
	limit := 4 * time.Second
	if refused {
		limit = 500 * time.Millisecond
	}
	if network == "udp" {
		return askPacket(h, address, "")
	}
	return askWithin(h, address, limit)
}
