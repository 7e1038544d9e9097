// Package count adds up how many connections this machine's mesh has led to each service that scales by them.
//
// It owns the way from counters, which begin anew whenever somebody makes their table again, to counts that only rise. It
// decides nothing by them. A Book is safe for concurrent use.
package count

import (
	"cmp"
	"slices"
	"sync"

	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/space"
)

// most is the protocol's.
const most = 1000

// Sources are where connections are counted; nil: nowhere.
type Sources struct {
	// Kernel reads the machine's own tables, Counted says for which service each of their counters is.
	Kernel  func() (map[kernel.Slot]uint64, error)
	Counted func() map[kernel.Slot]string
	// Spaces are the containers' tables.
	Spaces func() []space.Count
	// Forwarder counts what goes through user space, by service.
	Forwarder func() map[string]uint64
}

// Book is one process's.
type Book struct {
	sources Sources
	process uint64

	mu     sync.Mutex // guards all below
	first  bool       // nothing was read yet
	last   map[reading]uint64
	totals map[string]uint64 // by service
}

// reading names a counter.
type reading struct{ place, service string }

// New makes one. Process names it to those who ask.
func New(process uint64, s Sources) *Book {
	return &Book{sources: s, process: process, first: true, last: map[reading]uint64{}, totals: map[string]uint64{}}
}

// Read takes all counters and tells what they make together. Errors: the kernel does not answer; then nothing is counted.
func (b *Book) Read() (*meshv1.ConnectionsResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, err := b.now()
	if err != nil {
		return nil, err
	}
	for r, n := range now {
		switch was := b.last[r]; {
		case b.first: // the machine's counters are older than this process
		case n >= was:
			b.totals[r.service] += n - was
		default: // its table was made anew
			b.totals[r.service] += n
		}
	}
	b.first, b.last = false, now
	out := &meshv1.ConnectionsResponse{Process: b.process}
	for id, n := range b.totals {
		out.Services = append(out.Services, &meshv1.ServiceConnections{ServiceId: id, Connections: n})
	}
	slices.SortFunc(out.Services, func(x, y *meshv1.ServiceConnections) int { return cmp.Compare(x.GetServiceId(), y.GetServiceId()) })
	out.Services = out.Services[:min(len(out.Services), most)]
	return out, nil
}

func (b *Book) now() (map[reading]uint64, error) {
	out := map[reading]uint64{}
	if b.sources.Kernel != nil {
		counts, err := b.sources.Kernel()
		if err != nil {
			return nil, err
		}
		counted := b.sources.Counted()
		for slot, n := range counts {
			if service := counted[slot]; service != "" {
				out[reading{slot.Set + " " + slot.Key, service}] = n
			}
		}
	}
	if b.sources.Spaces != nil {
		for _, c := range b.sources.Spaces() {
			out[reading{c.Container + " " + c.VIP.String(), c.Service}] = c.Count
		}
	}
	for service, n := range b.sources.Forwarder() {
		out[reading{"", service}] = n
	}
	return out, nil
}
