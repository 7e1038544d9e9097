package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/ends"
)

const (
	// oneTry bounds the wait for one name server, allTries that for all of them: who asked has given up by then.
	oneTry   = 1500 * time.Millisecond
	allTries = 4500 * time.Millisecond
	// resolvConf has the machine's name servers; it is read again when it is older than this.
	resolvConf = "/etc/resolv.conf"
	resolvAge  = 2 * time.Second
	// mostServers is as many as a resolver of the C library takes.
	mostServers = 3
)

// outside asks the machine's name servers, or a container's own, each question once at a time.
type outside struct {
	env     run.Env
	cache   *cache
	seconds prometheus.Histogram

	mu      sync.Mutex // guards all below
	flights map[key]*flight
	servers []netip.Addr
	read    time.Time
}

// key is what makes two questions the same.
type key struct {
	name     string
	class    uint16
	kind     uint16
	do, cd   bool
	upstream string
}

// flight is a question that is being asked.
type flight struct {
	done chan struct{}
	msg  *dns.Msg
	err  error
}

func newOutside(env run.Env) *outside {
	seconds := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "shoal_dns_upstream_seconds", Help: "Time until name servers outside have answered.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 7),
	})
	o := &outside{env: env, cache: newCache(), seconds: seconds, flights: map[key]*flight{}}
	env.Metrics.MustRegister(seconds, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shoal_dns_cache_entries", Help: "Answers from outside that are kept.",
	}, func() float64 { return float64(o.cache.size()) }))
	return o
}

func keyOf(q question, servers []netip.Addr) key {
	asked := q.msg.Question[0]
	k := key{name: strings.ToLower(asked.Name), class: asked.Qclass, kind: asked.Qtype, cd: q.msg.CheckingDisabled, upstream: fmt.Sprint(servers)}
	if opt := q.msg.IsEdns0(); opt != nil {
		k.do = opt.Do()
	}
	return k
}

// cached is an answer that is still good, nil if there is none.
func (o *outside) cached(q question) *dns.Msg {
	m := o.cache.get(keyOf(q, o.of(q)), time.Now())
	if m == nil {
		return nil
	}
	return replyTo(q.msg, m)
}

// ask waits for the answer of somebody outside.
func (o *outside) ask(ctx context.Context, q question) (*dns.Msg, error) {
	servers := o.of(q)
	if len(servers) == 0 {
		return nil, errs.New(errs.Unavailable, "this machine has no name server in %s", resolvConf)
	}
	k := keyOf(q, servers)
	o.mu.Lock()
	f, under := o.flights[k]
	if !under {
		f = &flight{done: make(chan struct{})}
		o.flights[k] = f
	}
	o.mu.Unlock()
	if under {
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	} else {
		f.msg, f.err = o.tryAll(ctx, k, servers)
		o.mu.Lock()
		delete(o.flights, k)
		o.mu.Unlock()
		close(f.done)
	}
	if f.err != nil {
		return nil, f.err
	}
	return replyTo(q.msg, f.msg), nil
}

// of are the name servers for who asks.
func (o *outside) of(q question) []netip.Addr {
	if own := q.client.Nameservers; len(own) > 0 {
		return own[:min(len(own), mostServers)]
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.read.IsZero() && time.Since(o.read) < resolvAge {
		return o.servers
	}
	o.read = time.Now()
	if data, err := o.env.Files.Read(resolvConf); err == nil {
		o.servers = serversIn(string(data))
	}
	return o.servers
}

// serversIn reads resolv.conf(5). A machine's loopback is its own, and can be asked from here. Our own address would be a
// question without end.
func serversIn(text string) []netip.Addr {
	var out []netip.Addr
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err == nil && a != ends.NameServer4() && a != ends.NameServer6() && len(out) < mostServers {
			out = append(out, a)
		}
	}
	return out
}

// tryAll asks one server after the other, and what it hears last is the answer if none is better.
func (o *outside) tryAll(ctx context.Context, k key, servers []netip.Addr) (m *dns.Msg, err error) {
	ctx, cancel := context.WithTimeout(ctx, allTries)
	defer cancel()
	started := time.Now()
	for range 2 { // a datagram may be lost
		for _, server := range servers {
			if m, err = o.tryOne(ctx, k, netip.AddrPortFrom(server, port).String()); err != nil {
				continue
			}
			if m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError {
				o.seconds.Observe(time.Since(started).Seconds())
				o.cache.put(k, m, time.Now())
				return m, nil
			}
		}
		if m != nil && err == nil {
			return m, nil // they do not want to: to ask again changes nothing
		}
	}
	return nil, errs.New(errs.Unavailable, "no name server of %v answers: %w", servers, err)
}

func (o *outside) tryOne(ctx context.Context, k key, server string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	m := new(dns.Msg)
	m.Id = uint16(o.env.Rand.IntN(1 << 16))
	m.RecursionDesired, m.CheckingDisabled = true, k.cd
	m.Question = []dns.Question{{Name: k.name, Qtype: k.kind, Qclass: k.class}}
	m.SetEdns0(datagram, k.do)
	answer, err := o.exchange(ctx, "udp", server, m)
	if err == nil && answer.Truncated {
		return o.exchange(ctx, "tcp", server, m)
	}
	return answer, err
}

// exchange asks from a port of its own, which together with the number makes an answer hard to forge.
func (o *outside) exchange(ctx context.Context, network, server string, m *dns.Msg) (*dns.Msg, error) {
	conn, err := o.env.Net.Dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if at, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(at) // without it the connection's end is the context's
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	data, err := m.Pack()
	if err != nil {
		return nil, err
	}
	if network == "tcp" {
		data = append(binary.BigEndian.AppendUint16(nil, uint16(len(data))), data...)
	}
	if _, err := conn.Write(data); err != nil {
		return nil, err
	}
	for {
		data, err := receive(conn, network)
		if err != nil {
			return nil, err
		}
		answer := new(dns.Msg)
		if answer.Unpack(data) == nil && answers(answer, m) {
			return answer, nil
		}
	}
}

func receive(conn net.Conn, network string) ([]byte, error) {
	if network != "tcp" {
		buf := make([]byte, maxQuestion)
		n, err := conn.Read(buf)
		return buf[:n], err
	}
	head := make([]byte, 2)
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil, err
	}
	data := make([]byte, binary.BigEndian.Uint16(head))
	_, err := io.ReadFull(conn, data)
	return data, err
}

// answers says that a message is the answer to a question, not one that somebody else sent.
func answers(m, to *dns.Msg) bool {
	if !m.Response || m.Id != to.Id || len(m.Question) != 1 {
		return false
	}
	a, b := m.Question[0], to.Question[0]
	return strings.EqualFold(a.Name, b.Name) && a.Qtype == b.Qtype && a.Qclass == b.Qclass
}

// replyTo makes an answer from outside the answer to this question. The message that it is made from is not changed.
func replyTo(q, from *dns.Msg) *dns.Msg {
	m := from.Copy()
	m.Id, m.Question, m.Authoritative, m.RecursionDesired = q.Id, q.Question, false, q.RecursionDesired
	m.RecursionAvailable = true
	for i, rr := range m.Extra {
		if _, ok := rr.(*dns.OPT); ok { // it is about one hop
			m.Extra = append(m.Extra[:i], m.Extra[i+1:]...)
			break
		}
	}
	return m
}
