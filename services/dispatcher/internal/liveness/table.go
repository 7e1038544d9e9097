// Package liveness tells which machines live.
//
// It owns the two stages: a silent machine is SUSPECT after 2 s, so that its endpoints leave the mesh, and DOWN after 4 s,
// so that its tasks are replaced. It also watches the other dispatchers, and speaks for the machines of a dead one. What
// it knows at first hand are heartbeats; time that the store or this process itself was away is never counted. A Table is
// safe for concurrent use, a Monitor has one Run.
package liveness

import (
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
)

// Table holds the sessions of this dispatcher: who was heard, and when. It is safe for concurrent use.
type Table struct {
	mu      sync.Mutex // guards below
	entries map[string]*entry
	carried int // of them have an open stream
	rush    rush
}

type entry struct {
	number uint64
	bears  time.Duration // the silence that it was told of; zero: none
	heard  time.Time     // zero: never in this session
	from   time.Time     // the count starts here, if that is later
	end    func(error)   // ends the stream; nil when none is open
	ended  bool          // it had a stream, which is closed
	turn   time.Time     // adopted: until then its turn may come
	well   bool          // it was READY when last looked at
}

func (e *entry) silence(nodeID string, now time.Time) Silence {
	since := e.heard
	if e.from.After(since) {
		since = e.from
	}
	return Silence{NodeID: nodeID, Session: e.number, For: now.Sub(since), Heard: e.heard, Patience: e.bears, Ended: e.ended}
}

// Silence is how long a machine has not been heard.
type Silence struct {
	NodeID  string
	Session uint64
	// For is what counts.
	For time.Duration
	// Heard is when it was really heard last.
	Heard time.Time
	// Patience is what the machine was told of last with Bear; zero: never.
	Patience time.Duration
	// Ended says that its stream has ended.
	Ended bool
}

// ErrSuperseded is why a stream ends when its machine has a newer session.
func ErrSuperseded() error { return errs.New(errs.Precondition, "session superseded: open a new one") }

// NewTable makes an empty one.
func NewTable() *Table { return &Table{entries: map[string]*entry{}} }

// Open notes a new session; the stream of an older one of the machine is ended. So is the new one if it is the older by
// now: two streams of one machine may come to this point in another order than to the store.
func (t *Table) Open(nodeID string, number uint64, now time.Time, end func(reason error)) {
	if old := t.open(nodeID, &entry{number: number, heard: now, end: end}); old != nil {
		old(ErrSuperseded())
	}
}

// open returns the end of the stream that must go.
func (t *Table) open(nodeID string, next *entry) func(error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rush.note(next.heard)
	old := t.entries[nodeID]
	if old != nil && old.number > next.number {
		return next.end
	}
	t.entries[nodeID] = next
	if next.end != nil {
		t.carried++
	}
	if old == nil {
		return nil
	}
	return t.release(old)
}

// release is the end of a stream that no longer counts; nil: there is none.
func (t *Table) release(e *entry) (end func(error)) {
	if end, e.end = e.end, nil; end != nil {
		t.carried--
	}
	return end
}

// Knock notes that a machine has come and waits for its session to begin. If this dispatcher had one with it in an earlier life, it
// is not silent.
func (t *Table) Knock(nodeID string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rush.note(now)
	if e := t.entries[nodeID]; e != nil && now.Before(e.turn) {
		e.from = now
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

// Bear notes the silence after which a machine is SUSPECT, since it beats less often than the configured one bears. It is noted
// before the machine is told: one that beats less often already must not be judged by what was before.
func (t *Table) Bear(nodeID string, number uint64, patience time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[nodeID]; e != nil && e.number == number {
		e.bears = patience
	}
}

// Closed notes that a stream has ended. The machine's silence goes on counting.
func (t *Table) Closed(nodeID string, number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[nodeID]; e != nil && e.number == number {
		t.release(e)
		e.ended = true
	}
}

// Adopt notes a session that this dispatcher had in an earlier life. Silence counts from now.
func (t *Table) Adopt(nodeID string, number uint64, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[nodeID]; e == nil || (e.number < number && e.end == nil) {
		t.entries[nodeID] = &entry{number: number, from: now, turn: now.Add(longestRush)}
	}
}

// Forget drops a session that is another dispatcher's now, and ends its stream.
func (t *Table) Forget(nodeID string, number uint64) {
	if end := t.remove(nodeID, number); end != nil {
		end(ErrSuperseded())
	}
}

func (t *Table) remove(nodeID string, number uint64) (end func(error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[nodeID]
	if e == nil || e.number != number {
		return nil
	}
	delete(t.entries, nodeID)
	return t.release(e)
}

// End ends a session's stream, if it is open. The session stays the machine's until another is bound.
func (t *Table) End(nodeID string, number uint64, reason error) {
	if end := t.endOf(nodeID, number); end != nil {
		end(reason)
	}
}

func (t *Table) endOf(nodeID string, number uint64) func(error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[nodeID]; e != nil && e.number == number {
		return e.end
	}
	return nil
}

// Restart counts every silence afresh. Nobody counts as heard by it.
func (t *Table) Restart(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		e.from = now
	}
}

// AwaitTurns counts the silence of adopted sessions afresh while others come back so fast that theirs may wait for their turn.
func (t *Table) AwaitTurns(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.rush.on(now) {
		return
	}
	for _, e := range t.entries {
		if now.Before(e.turn) {
			e.from = now
		}
	}
}

// Delay takes a time in which this process had no turn out of every silence. Nobody counts as heard by it.
func (t *Table) Delay(lost time.Duration, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		from := e.from
		if e.heard.After(from) {
			from = e.heard
		}
		if e.from = from.Add(lost); e.from.After(now) {
			e.from = now
		}
	}
}

// Doubtful lists the sessions that must be looked at: those that have not been found well, those that have been silent for as
// long as limit or as they were told, and those that somebody names. Of thousands of machines that is hardly one at most ticks.
func (t *Table) Doubtful(now time.Time, limit time.Duration, named func(nodeID string) bool) []Silence {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Silence
	for id, e := range t.entries {
		if silence := e.silence(id, now); !e.well || silence.For >= max(limit, e.bears) || named(id) {
			e.well = false
			out = append(out, silence)
		}
	}
	return out
}

// Well notes that a session was looked at, and that all is well with its machine.
func (t *Table) Well(nodeID string, number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[nodeID]; e != nil && e.number == number {
		e.well = true
	}
}

// Carries is what a Table carries.
func (t *Table) Carries() string { return "sessions" }

// Carried is how many sessions have an open stream. It is asked at each change of the store.
func (t *Table) Carried() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.carried
}

// HandOver ends the streams of as many sessions as there are reasons, one for each; which ones is left to chance.
func (t *Table) HandOver(reasons []error) {
	for i, end := range t.some(len(reasons)) {
		end(reasons[i])
	}
}

func (t *Table) some(n int) []func(error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []func(error)
	for _, e := range t.entries {
		if e.end != nil && len(out) < n {
			out = append(out, e.end)
		}
	}
	return out
}

// Of tells about one machine's session here.
func (t *Table) Of(nodeID string, now time.Time) (Silence, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[nodeID]; e != nil {
		return e.silence(nodeID, now), true
	}
	return Silence{}, false
}
