// Package liveness tells which machines live.
//
// It owns the two stages: a silent machine is SUSPECT after 2 s, so that its endpoints leave the mesh, and DOWN after 4 s,
// so that its tasks are replaced. It also watches the other dispatchers, and speaks for the machines of a dead one. What
// it knows at first hand are heartbeats; time that the store or this process itself was away is never counted.
package liveness

import (
	"sync"
	"time"
)

// Table holds the sessions of this dispatcher: who was heard, and when. It is safe for concurrent use.
type Table struct {
	mu      sync.Mutex // guards entries
	entries map[string]*entry
}

type entry struct {
	number uint64
	heard  time.Time
	end    func() // ends the stream; nil when none is open
}

// Silence is how long a machine has not been heard.
type Silence struct {
	NodeID  string
	Session uint64
	For     time.Duration
	Open    bool
}

// NewTable makes an empty one.
func NewTable() *Table { return &Table{entries: map[string]*entry{}} }

// Open notes a new session; an older stream of the machine is ended.
func (t *Table) Open(nodeID string, number uint64, now time.Time, end func()) {
	t.mu.Lock()
	old := t.entries[nodeID]
	t.entries[nodeID] = &entry{number: number, heard: now, end: end}
	t.mu.Unlock()
	if old != nil && old.end != nil {
		old.end()
	}
}

// Heard notes a sign of life.
func (t *Table) Heard(nodeID string, number uint64, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[nodeID]; e != nil && e.number == number {
		e.heard = now
	}
}

// Closed notes that a stream has ended. The machine's silence goes on counting.
func (t *Table) Closed(nodeID string, number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[nodeID]; e != nil && e.number == number {
		e.end = nil
	}
}

// Adopt notes a session that this dispatcher had in an earlier life. Silence counts from now.
func (t *Table) Adopt(nodeID string, number uint64, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[nodeID]; e == nil || e.number < number {
		t.entries[nodeID] = &entry{number: number, heard: now}
	}
}

// Forget drops a session that is another dispatcher's now, and ends its stream.
func (t *Table) Forget(nodeID string, number uint64) {
	t.mu.Lock()
	e := t.entries[nodeID]
	if e == nil || e.number != number {
		t.mu.Unlock()
		return
	}
	delete(t.entries, nodeID)
	t.mu.Unlock()
	if e.end != nil {
		e.end()
	}
}

// Restart counts every silence afresh.
func (t *Table) Restart(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		e.heard = now
	}
}

// Silences lists all sessions.
func (t *Table) Silences(now time.Time) []Silence {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Silence, 0, len(t.entries))
	for id, e := range t.entries {
		out = append(out, Silence{NodeID: id, Session: e.number, For: now.Sub(e.heard), Open: e.end != nil})
	}
	return out
}

// Of tells about one machine's session here.
func (t *Table) Of(nodeID string, now time.Time) (Silence, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[nodeID]
	if e == nil {
		return Silence{}, false
	}
	return Silence{NodeID: nodeID, Session: e.number, For: now.Sub(e.heard), Open: e.end != nil}, true
}
