// Package limit bounds how often one address may try: a bucket of tokens an address, refilled at a steady rate.
//
// It must never grow without bound: when the table is full, buckets that have refilled are forgotten, and if none has, all
// newcomers share one. Time is an argument. A Limiter is safe for concurrent use.
package limit

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limiter has the buckets.
type Limiter struct {
	rate  float64 // tokens a second
	burst float64
	most  int

	mu      sync.Mutex // guards buckets
	buckets map[string]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

// crowd is the bucket of those who come while the table is full. No address is called so.
const crowd = "*"

// New allows rate tries a second, and burst at once; it knows at most so many addresses apart.
func New(rate float64, burst, most int) *Limiter {
	return &Limiter{rate: rate, burst: float64(burst), most: most, buckets: map[string]bucket{}}
}

// Allow takes one try of the address, if it has one left.
func (l *Limiter) Allow(address string, now time.Time) bool {
	key := keyOf(address)
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.buckets[key]
	if !known && len(l.buckets) >= l.most {
		l.forget(now)
		if len(l.buckets) >= l.most {
			key = crowd
			b, known = l.buckets[key]
		}
	}
	if !known {
		b = bucket{left: l.burst, at: now}
	}
	b = l.refill(b, now)
	ok := b.left >= 1
	if ok {
		b.left--
	}
	l.buckets[key] = b
	return ok
}

// refill gives what the time has earned. A clock that went back earns nothing.
func (l *Limiter) refill(b bucket, now time.Time) bucket {
	passed := max(now.Sub(b.at), 0)
	return bucket{left: min(l.burst, b.left+passed.Seconds()*l.rate), at: now}
}

// forget drops the buckets that are full again: a newcomer's is no different.
func (l *Limiter) forget(now time.Time) {
	for key, b := range l.buckets {
		if l.refill(b, now).left >= l.burst {
			delete(l.buckets, key)
		}
	}
}

// keyOf is the host of host:port. Of an IPv6 address only the /64 counts: who has one address of it has all.
func keyOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	ip = ip.WithZone("").Unmap()
	if ip.Is6() {
		p, _ := ip.Prefix(64)
		return p.String()
	}
	return ip.String()
}
