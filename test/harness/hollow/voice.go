package hollow

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// What an agent says of its session: all of its words that are heard.
const (
	sessionOpened = "session opened"
	sessionEnded  = "session ended"
)

// voice is an agent's log: thousands of agents say too much to be kept. Who says that its session has ended goes on when it is its turn
// to come back. It is safe for concurrent use.
type voice struct {
	first chan struct{} // closed with the first session
	turns *turns

	mu     sync.Mutex // guards below
	opened int
	open   bool
	back   func() // ends its turn; nil: it has none
}

func newVoice(t *turns) *voice { return &voice{first: make(chan struct{}), turns: t} }

// sessions tells how many were opened, and whether one is open.
func (v *voice) sessions() (opened int, open bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.opened, v.open
}

// firstSession waits for the first session, for as long as limit.
func (v *voice) firstSession(ctx context.Context, limit time.Duration) {
	enough := time.NewTimer(limit)
	defer enough.Stop()
	select {
	case <-v.first:
	case <-enough.C:
	case <-ctx.Done():
	}
}

// Enabled is as in slog.Handler.
func (*voice) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle is as in slog.Handler.
func (v *voice) Handle(_ context.Context, r slog.Record) error {
	switch r.Message {
	case sessionOpened:
		if back := v.hasOpened(); back != nil {
			back()
		}
	case sessionEnded:
		v.hasEnded()
		back := v.turns.wait(backLimit)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.back = back
	}
	return nil
}

func (v *voice) hasOpened() (back func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.opened++; v.opened == 1 {
		close(v.first)
	}
	v.open = true
	back, v.back = v.back, nil
	return back
}

func (v *voice) hasEnded() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.open = false
}

// WithAttrs is as in slog.Handler.
func (v *voice) WithAttrs([]slog.Attr) slog.Handler { return v }

// WithGroup is as in slog.Handler.
func (v *voice) WithGroup(string) slog.Handler { return v }
