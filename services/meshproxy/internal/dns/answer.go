package dns

import (
	"context"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/shoalproject/shoal/services/meshproxy/internal/names"
)

const (
	// ttl of the cluster's names, in seconds: what has left is forgotten soon, whoever keeps answers.
	ttl = 5
	// datagram is the most that we send in one, and take: it passes every link whole.
	datagram = 1232
)

// question is one that may be answered.
type question struct {
	client *names.Client
	msg    *dns.Msg
}

// read takes a question apart. It is false for one that gets no answer: garbage, or more than its container may ask.
func (s *Server) read(client *names.Client, data []byte) (question, bool) {
	if !s.limits.take(client.Task) {
		s.results.WithLabelValues("limited").Inc()
		return question{}, false
	}
	msg := new(dns.Msg)
	if err := msg.Unpack(data); err != nil || msg.Response {
		s.results.WithLabelValues("garbage").Inc()
		return question{}, false
	}
	return question{client, msg}, true
}

// inside answers what can be answered without asking anybody; nil: somebody must be asked.
func (s *Server) inside(q question, packet bool) []byte {
	m := q.msg
	switch {
	case m.Opcode != dns.OpcodeQuery:
		return s.say(q, packet, "refused", refuse(m, dns.RcodeNotImplemented, ""))
	case len(m.Question) != 1:
		return s.say(q, packet, "refused", refuse(m, dns.RcodeFormatError, ""))
	case m.IsEdns0() != nil && m.IsEdns0().Version() != 0:
		return s.say(q, packet, "refused", refuse(m, dns.RcodeBadVers, ""))
	case m.Question[0].Qclass != dns.ClassINET:
		return s.say(q, packet, "refused", refuse(m, dns.RcodeRefused, ""))
	}
	asked := m.Question[0]
	found := q.client.Resolve(asked.Name, typeOf(asked.Qtype))
	switch {
	case found.Verdict == names.Missing:
		return s.say(q, packet, "missing", refuse(m, dns.RcodeNameError, ""))
	case found.Verdict == names.Exists:
		return s.say(q, packet, "cluster", s.records(m, found))
	case q.client.Internal:
		return s.say(q, packet, "refused", refuse(m, dns.RcodeNameError, "all networks of this container are internal"))
	}
	if cached := s.outside.cached(q); cached != nil {
		return s.say(q, packet, "cached", cached)
	}
	return nil
}

// forward asks outside. It always has an answer.
func (s *Server) forward(ctx context.Context, q question, packet bool) []byte {
	if !s.limits.begin(q.client.Task) {
		return s.say(q, packet, "limited", refuse(q.msg, dns.RcodeServerFailure, "too many questions of this container wait for outside"))
	}
	defer s.limits.end(q.client.Task)
	m, err := s.outside.ask(ctx, q)
	if err != nil {
		return s.say(q, packet, "failed", refuse(q.msg, dns.RcodeServerFailure, err.Error()))
	}
	return s.say(q, packet, "forwarded", m)
}

// say packs an answer in the size that its asker takes. What does not fit into a datagram is asked again by TCP.
func (s *Server) say(q question, packet bool, result string, m *dns.Msg) []byte {
	s.results.WithLabelValues(result).Inc()
	size := dns.MaxMsgSize
	opt := q.msg.IsEdns0()
	if packet {
		size = dns.MinMsgSize
		if opt != nil {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), datagram)
		}
	}
	if opt != nil && m.IsEdns0() == nil {
		m.SetEdns0(datagram, opt.Do())
	}
	m.Compress = true
	m.Truncate(size)
	data, err := m.Pack()
	if err != nil { // it came from outside in a form that cannot be written
		data, _ = refuse(q.msg, dns.RcodeServerFailure, "").Pack()
	}
	return data
}

// refuse has no records. Why is for people who look (RFC 8914), and only told to who speaks EDNS.
func refuse(to *dns.Msg, code int, why string) *dns.Msg {
	m := new(dns.Msg).SetRcode(to, code)
	m.RecursionAvailable = true
	opt := to.IsEdns0()
	if opt == nil {
		return m
	}
	m.SetEdns0(datagram, opt.Do())
	if code > 15 {
		m.IsEdns0().SetExtendedRcode(uint16(code))
	}
	if why != "" {
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeOther, ExtraText: why})
	}
	return m
}

func typeOf(t uint16) names.Type {
	switch t {
	case dns.TypeA:
		return names.A
	case dns.TypeAAAA:
		return names.AAAA
	case dns.TypePTR:
		return names.PTR
	case dns.TypeSRV:
		return names.SRV
	}
	return names.Other
}

// records writes what was found, from another one on each time, so that who takes the first address takes turns.
func (s *Server) records(to *dns.Msg, found names.Answer) *dns.Msg {
	m := new(dns.Msg).SetReply(to)
	m.Authoritative, m.RecursionAvailable = true, true
	name := to.Question[0].Name
	for _, a := range found.Addresses {
		m.Answer = append(m.Answer, address(name, a))
	}
	for _, n := range found.Names {
		m.Answer = append(m.Answer, &dns.PTR{Hdr: header(name, dns.TypePTR), Ptr: dns.Fqdn(n)})
	}
	for _, t := range found.Services {
		target := dns.Fqdn(t.Name)
		m.Answer = append(m.Answer, &dns.SRV{Hdr: header(name, dns.TypeSRV), Weight: 1, Port: t.Port, Target: target})
		for _, a := range t.Addresses {
			m.Extra = append(m.Extra, address(target, a))
		}
	}
	if n := len(m.Answer); n > 1 {
		first := s.env.Rand.IntN(n)
		m.Answer = slices.Concat(m.Answer[first:], m.Answer[:first])
	}
	return m
}

func address(name string, a netip.Addr) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()}
}

func header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
}
