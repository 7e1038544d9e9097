package forward

import (
	"maps"
	"sync"
)

// counts are the new connections and UDP sessions by service, for those that are to be counted.
type counts struct {
	mu sync.Mutex
	by map[string]uint64
}

// add counts one for a service; none for "".
func (c *counts) add(service string) {
	if service == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]uint64{}
	}
	c.by[service]++
}

// Counts are how many connections and UDP sessions began here, by the id of the service, since the process did.
func (f *Forwarder) Counts() map[string]uint64 {
	f.counts.mu.Lock()
	defer f.counts.mu.Unlock()
	return maps.Clone(f.counts.by)
}
