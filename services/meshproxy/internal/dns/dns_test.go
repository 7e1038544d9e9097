package dns_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/dns"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// loopback is the kernel's, with addresses that stand for others: the name server's own, and those outside. Containers are
// told apart by the loopback addresses that they ask from.
type loopback struct {
	t       *testing.T
	mu      sync.Mutex // guards all below
	at      map[string]string
	changed chan struct{}
}

func (l *loopback) set(name, address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at[name] = address
	close(l.changed)
	l.changed = make(chan struct{})
}

// where waits until something listens.
func (l *loopback) where(name string) string {
	for {
		l.mu.Lock()
		address, changed := l.at[name], l.changed
		l.mu.Unlock()
		if address != "" {
			return address
		}
		select {
		case <-changed:
		case <-l.t.Context().Done():
			return ""
		}
	}
}

func (l *loopback) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if network != "tcp4" {
		return nil, net.UnknownNetworkError(network)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, network, "127.0.0.1:0")
	if err == nil {
		l.set("tcp "+address, ln.Addr().String())
	}
	return ln, err
}

func (l *loopback) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	if network != "udp4" {
		return nil, net.UnknownNetworkError(network)
	}
	pc, err := (&net.ListenConfig{}).ListenPacket(ctx, network, "127.0.0.1:0")
	if err == nil {
		l.set("udp "+address, pc.LocalAddr().String())
	}
	return pc, err
}

func (l *loopback) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, l.where(network+" "+address))
}

type health struct{}

func (health) Set(string, bool, string) {}

const own = "169.254.53.53:53"

// rig is a name server with two containers: 127.0.1.1 on network front, 127.0.1.2 on one without a way out.
type rig struct {
	t   *testing.T
	net *loopback
	*dns.Server
	revision uint64
}

func start(t *testing.T) *rig {
	env := testx.Env(t)
	n := &loopback{t: t, at: map[string]string{}, changed: make(chan struct{})}
	env.Net = n
	if err := env.Files.Write("/etc/resolv.conf", []byte("search example.org\nnameserver 192.0.2.1\nnameserver 169.254.53.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, net: n, Server: dns.New(env, health{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r.tell(3)
	return r
}

// tell says how many ready tasks there are.
func (r *rig) tell(tasks int) {
	r.t.Helper()
	r.revision++
	web := &dispatcherv1.NetworkService{NetworkId: "front", ServiceId: "s", Name: "web"}
	for i := range tasks {
		web.Endpoints = append(web.Endpoints, &dispatcherv1.NetworkEndpoint{
			TaskId: fmt.Sprint("task", i), Slot: uint64(i + 1), Addresses: []string{fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)},
		})
	}
	var m *mesh.Model
	m, err := m.Apply(&dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{Revision: r.revision}, Full: true,
		Networks: []*dispatcherv1.MeshNetwork{{NetworkId: "front", Name: "front"}, {NetworkId: "inner", Name: "inner", Internal: true}},
		LocalTasks: []*dispatcherv1.LocalTask{
			{TaskId: "a", Addresses: []string{"127.0.1.1"}, NetworkIds: []string{"front"}},
			{TaskId: "b", Addresses: []string{"127.0.1.2"}, NetworkIds: []string{"inner"}},
			{TaskId: "c", Addresses: []string{"127.0.1.3"}, NetworkIds: []string{"front"}, Nameservers: []string{"192.0.2.2"}},
		},
		NetworkServices: []*dispatcherv1.NetworkService{web},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.Apply(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) exchange(from, network string, m *wire.Msg) (*wire.Msg, error) {
	client := &wire.Client{Net: network, Timeout: 3 * time.Second, Dialer: &net.Dialer{}}
	ip := net.ParseIP(from)
	if client.Dialer.LocalAddr = net.Addr(&net.UDPAddr{IP: ip}); network == "tcp" {
		client.Dialer.LocalAddr = &net.TCPAddr{IP: ip}
	}
	answer, _, err := client.Exchange(m, r.net.where(network+" "+own))
	return answer, err
}

func ask(name string, kind uint16) *wire.Msg { return new(wire.Msg).SetQuestion(name, kind) }

// must is the answer to a container's question.
func (r *rig) must(from, network string, m *wire.Msg) *wire.Msg {
	r.t.Helper()
	answer, err := r.exchange(from, network, m)
	if err != nil && !strings.Contains(err.Error(), "truncated") {
		r.t.Fatalf("%s asks for %v by %s: %v", from, m.Question, network, err)
	}
	return answer
}

// outside is a name server that answers with an address that tells which one it is, and counts its questions.
func (r *rig) outside(address, says string, answer func(network string, q *wire.Msg) *wire.Msg) *atomic.Int64 {
	r.t.Helper()
	var asked atomic.Int64
	pc, err := (&net.ListenConfig{}).ListenPacket(r.t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(r.t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	handler := wire.HandlerFunc(func(w wire.ResponseWriter, q *wire.Msg) {
		asked.Add(1)
		m := new(wire.Msg).SetReply(q)
		if answer != nil {
			m = answer(w.RemoteAddr().Network(), q)
		} else {
			rr, _ := wire.NewRR(q.Question[0].Name + " 60 IN A " + says)
			m.Answer = []wire.RR{rr}
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*wire.Server{{PacketConn: pc, Handler: handler}, {Listener: l, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		r.t.Cleanup(func() { _ = s.Shutdown() })
	}
	r.net.set("udp "+address+":53", pc.LocalAddr().String())
	r.net.set("tcp "+address+":53", l.Addr().String())
	return &asked
}

func addresses(m *wire.Msg) (out []string) {
	for _, rr := range m.Answer {
		if a, ok := rr.(*wire.A); ok {
			out = append(out, a.A.String())
		}
	}
	slices.Sort(out)
	return out
}

// A container hears the tasks of its network's services, with a short time to live, and a change with the next question.
func TestNamesOfTheCluster(t *testing.T) {
	r := start(t)
	for _, network := range []string{"udp", "tcp"} {
		m := r.must("127.0.1.1", network, ask("web.", wire.TypeA))
		if got := addresses(m); !slices.Equal(got, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}) || m.Answer[0].Header().Ttl != 5 || !m.Authoritative {
			t.Errorf("by %s: %v", network, m)
		}
	}
	r.tell(1)
	if got := addresses(r.must("127.0.1.1", "udp", ask("tasks.web.", wire.TypeA))); !slices.Equal(got, []string{"10.0.0.1"}) {
		t.Errorf("after two have left: %v", got)
	}
	m := r.must("127.0.1.1", "udp", ask("_80._tcp.web.", wire.TypeSRV))
	if srv, ok := m.Answer[0].(*wire.SRV); !ok || srv.Target != "1.web." || srv.Port != 80 || len(m.Extra) != 1 {
		t.Errorf("SRV: %v", m)
	}
	if m := r.must("127.0.1.1", "udp", ask("web.", wire.TypeAAAA)); m.Rcode != wire.RcodeSuccess || len(m.Answer) != 0 {
		t.Errorf("AAAA: %v", m)
	}
	if m := r.must("127.0.1.1", "udp", ask("9.web.", wire.TypeA)); m.Rcode != wire.RcodeNameError {
		t.Errorf("a slot that is not there: %v", m)
	}
}

// Who takes the first address of several takes turns.
func TestTurns(t *testing.T) {
	r := start(t)
	first := map[string]int{}
	for range 90 {
		m := r.must("127.0.1.1", "udp", ask("web.", wire.TypeA))
		first[m.Answer[0].(*wire.A).A.String()]++
	}
	if len(first) != 3 {
		t.Errorf("of 90 answers these were first: %v", first)
	}
}

// What does not fit is marked, and had by TCP whole; EDNS makes room up to what passes every link.
func TestSizes(t *testing.T) {
	r := start(t)
	r.tell(200)
	plain := r.must("127.0.1.1", "udp", ask("web.", wire.TypeA))
	plain.Compress = true
	if !plain.Truncated || plain.Len() > 512 || len(plain.Answer) == 0 {
		t.Errorf("without EDNS: truncated=%t, %d bytes, %d answers", plain.Truncated, plain.Len(), len(plain.Answer))
	}
	large := ask("web.", wire.TypeA)
	large.SetEdns0(8192, false)
	m := r.must("127.0.1.1", "udp", large)
	m.Compress = true
	if !m.Truncated || m.Len() > 1232 || len(m.Answer) <= len(plain.Answer) || m.IsEdns0() == nil {
		t.Errorf("with EDNS: truncated=%t, %d bytes, %d answers", m.Truncated, m.Len(), len(m.Answer))
	}
	if m := r.must("127.0.1.1", "tcp", large); m.Truncated || len(m.Answer) != 200 {
		t.Errorf("by TCP: truncated=%t, %d answers", m.Truncated, len(m.Answer))
	}
	future := ask("web.", wire.TypeA)
	future.SetEdns0(1232, false)
	future.IsEdns0().SetVersion(1)
	if m := r.must("127.0.1.1", "udp", future); m.Rcode != wire.RcodeBadVers {
		t.Errorf("a version that nobody knows: %v", m)
	}
}

// Whatever is not the cluster's is asked outside, of the machine's name servers or the container's own, once for all.
func TestOutside(t *testing.T) {
	r := start(t)
	asked := r.outside("192.0.2.1", "203.0.113.1", nil)
	r.outside("192.0.2.2", "203.0.113.2", nil)
	for _, from := range []string{"127.0.1.1", "127.0.1.1"} {
		m := r.must(from, "udp", ask("Example.org.", wire.TypeA))
		if got := addresses(m); !slices.Equal(got, []string{"203.0.113.1"}) || m.Authoritative || !m.RecursionAvailable {
			t.Errorf("the machine's: %v", m)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times, want once: an answer is kept", asked.Load())
	}
	if got := addresses(r.must("127.0.1.3", "udp", ask("example.org.", wire.TypeA))); !slices.Equal(got, []string{"203.0.113.2"}) {
		t.Errorf("the container's own: %v; what another server said must not be told", got)
	}
}

// From an internal network nobody outside is asked, and strangers hear nothing.
func TestInternalAndStrangers(t *testing.T) {
	r := start(t)
	asked := r.outside("192.0.2.1", "203.0.113.1", nil)
	q := ask("example.org.", wire.TypeA)
	q.SetEdns0(1232, false)
	m := r.must("127.0.1.2", "udp", q)
	if m.Rcode != wire.RcodeNameError || !strings.Contains(m.String(), "internal") {
		t.Errorf("from an internal network: %v", m)
	}
	if m := r.must("127.0.1.2", "udp", ask("web.", wire.TypeA)); m.Rcode != wire.RcodeNameError || len(m.Answer) != 0 {
		t.Errorf("a name of another network: %v", m)
	}
	if asked.Load() != 0 {
		t.Errorf("%d questions went outside", asked.Load())
	}
	if m, err := r.exchange("127.0.1.9", "tcp", ask("web.", wire.TypeA)); err == nil {
		t.Errorf("a stranger hears %v", m)
	}
}

// A large answer from outside is fetched by TCP; what outside refuses or does not have is told; an answer to another question
// is not believed.
func TestOutsideAnswers(t *testing.T) {
	r := start(t)
	r.outside("192.0.2.1", "", func(network string, q *wire.Msg) *wire.Msg {
		m := new(wire.Msg).SetReply(q)
		switch q.Question[0].Name {
		case "refused.":
			m.Rcode = wire.RcodeRefused
		case "none.":
			m.Rcode = wire.RcodeNameError
		case "forged.":
			m.Question[0].Name = "another."
		case "big.":
			m.Truncated = network == "udp"
			for i := range 40 {
				rr, _ := wire.NewRR(fmt.Sprintf("big. 60 IN A 198.51.100.%d", i))
				m.Answer = append(m.Answer, rr)
			}
		}
		return m
	})
	for name, code := range map[string]int{"refused.": wire.RcodeRefused, "none.": wire.RcodeNameError} {
		if m := r.must("127.0.1.1", "udp", ask(name, wire.TypeA)); m.Rcode != code {
			t.Errorf("%s: %v", name, m)
		}
	}
	if m := r.must("127.0.1.1", "tcp", ask("big.", wire.TypeA)); m.Truncated || len(m.Answer) != 40 {
		t.Errorf("big: truncated=%t, %d answers", m.Truncated, len(m.Answer))
	}
	client := &wire.Client{Net: "tcp", Timeout: 10 * time.Second, Dialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, 1)}}}
	if m, _, err := client.Exchange(ask("forged.", wire.TypeA), r.net.where("tcp "+own)); err != nil || m.Rcode != wire.RcodeServerFailure {
		t.Errorf("forged: %v %v", m, err)
	}
}

// A container that asks without end is slowed down, and its neighbour does not notice.
func TestFloodHarmsNobodyElse(t *testing.T) {
	r := start(t)
	conn, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 1, 1)}}).DialContext(t.Context(), "udp", r.net.where("udp "+own))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	data, err := ask("web.", wire.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for range 20_000 {
		if _, err := conn.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if got := addresses(r.must("127.0.1.3", "tcp", ask("web.", wire.TypeA))); len(got) != 3 {
		t.Errorf("the neighbour hears %v", got)
	}
}
