package forward

import (
	"net/netip"
	"sync"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Open is a connection or UDP session of a client that this process carries.
type Open struct {
	mesh.Listener
	// Client began it, Dialled is this machine's address that it came to; invalid where that is not known.
	Client, Dialled netip.AddrPort
	// Backend is the task that it was led to.
	Backend mesh.Backend
}

// book has those that are open.
type book struct {
	mu  sync.Mutex
	all map[*Open]struct{}
}

// enter notes one, and returns what takes it out again.
func (b *book) enter(o *Open) (leave func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[*Open]struct{}{}
	}
	b.all[o] = struct{}{}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.all, o)
	}
}

// Opened are the connections and sessions that are open, in no order.
func (f *Forwarder) Opened() []Open {
	f.book.mu.Lock()
	defer f.book.mu.Unlock()
	out := make([]Open, 0, len(f.book.all))
	for o := range f.book.all {
		out = append(out, *o)
	}
	return out
}
