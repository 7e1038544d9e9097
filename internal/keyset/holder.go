package keyset

import "sync"

// Holder is where a process keeps the keyset once it has it. The zero value is not ready: use NewHolder.
type Holder struct {
	mu  sync.Mutex // guards key
	key *Keyset
	got chan struct{} // closed when key is set
}

// NewHolder is empty.
func NewHolder() *Holder { return &Holder{got: make(chan struct{})} }

// Get is nil before the process has been given the keyset.
func (h *Holder) Get() *Keyset {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.key
}

// Set keeps the keyset and reports whether it was the first.
func (h *Holder) Set(k *Keyset) (first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first = h.key == nil
	h.key = k
	if first {
		close(h.got)
	}
	return first
}

// Got is closed when there is one.
func (h *Holder) Got() <-chan struct{} { return h.got }
