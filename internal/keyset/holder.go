package keyset

import (
	"slices"
	"sync"
)

// Holder is where a process keeps the keyset once it has it, with those that it has replaced and that still open what was
// sealed with them. The zero value is not ready: use NewHolder.
type Holder struct {
	mu   sync.Mutex    // guards ring
	ring []*Keyset     // the newest last
	got  chan struct{} // closed when there is one
}

// NewHolder is empty.
func NewHolder() *Holder { return &Holder{got: make(chan struct{})} }

// Get is the newest, which seals; nil before the process has been given one.
func (h *Holder) Get() *Keyset {
	ring := h.Ring()
	if len(ring) == 0 {
		return nil
	}
	return ring[len(ring)-1]
}

// Of is the one with an id; nil: this process has not been given it.
func (h *Holder) Of(id string) *Keyset {
	for _, k := range h.Ring() {
		if k.ID() == id {
			return k
		}
	}
	return nil
}

// Ring are all, the newest last. It must not be changed.
func (h *Holder) Ring() []*Keyset {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ring
}

// Set keeps them, the newest last, in the place of those before.
func (h *Holder) Set(ring ...*Keyset) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := len(h.ring) == 0 && len(ring) > 0
	h.ring = slices.Clone(ring)
	if first {
		close(h.got)
	}
}

// Got is closed when there is one.
func (h *Holder) Got() <-chan struct{} { return h.got }
