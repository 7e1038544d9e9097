package dns

import (
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of what is kept: 16 MiB at most.
const (
	mostEntries = 4096
	mostBytes   = 4096 // of one answer
	longest     = 5 * time.Minute
	longestNone = 30 * time.Second // that there is nothing
)

// cache keeps answers from outside for as long as they say.
type cache struct {
	mu      sync.Mutex // guards below
	entries map[key]entry
}

type entry struct {
	msg       *dns.Msg // never changed
	kept, end time.Time
}

func newCache() *cache { return &cache{entries: map[key]entry{}} }

func (c *cache) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// get is a copy with what is left of its time, nil if there is none.
func (c *cache) get(k key, now time.Time) *dns.Msg {
	c.mu.Lock()
	e, ok := c.entries[k]
	if ok && !now.Before(e.end) {
		delete(c.entries, k)
		ok = false
	}
	c.mu.Unlock()
	if !ok {
		return nil
	}
	m := e.msg.Copy()
	age := uint32(now.Sub(e.kept) / time.Second)
	for _, part := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range part {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(h.Ttl, age)
			}
		}
	}
	return m
}

func (c *cache) put(k key, m *dns.Msg, now time.Time) {
	left := lifetime(m)
	if left <= 0 || m.Truncated || m.Len() > mostBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.entries[k]; !there && len(c.entries) >= mostEntries {
		for old := range c.entries { // any: who floods us with names mostly loses its own
			delete(c.entries, old)
			break
		}
	}
	c.entries[k] = entry{msg: m, kept: now, end: now.Add(left)}
}

// lifetime is the shortest of all records; of an answer that says that there is nothing, what its zone says (RFC 2308).
func lifetime(m *dns.Msg) time.Duration {
	if len(m.Answer) > 0 && m.Rcode == dns.RcodeSuccess {
		ttl := longest
		for _, rr := range m.Answer {
			ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
		}
		return ttl
	}
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(longestNone, time.Duration(min(soa.Minttl, soa.Hdr.Ttl))*time.Second)
		}
	}
	return 0
}
