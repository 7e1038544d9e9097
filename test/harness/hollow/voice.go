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

// voice is an agent's log: thousands of agents say too much to be kept. It is safe for concurrent use.
type voice struct {
	first chan struct{} // closed with the first session

	mu     sync.Mutex // guards below
	opened int
	open   bool
}

func newVoice() *voice { return &voice{first: make(chan struct{})} }

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
	v.mu.Lock()
	defer v.mu.Unlock()
	switch r.Message {
	case sessionOpened:
		if v.opened++; v.opened == 1 {
			close(v.first)
		}
		v.open = true
	case sessionEnded:
		v.open = false
	}
	return nil
}

// WithAttrs is as in slog.Handler.
func (v *voice) WithAttrs([]slog.Attr) slog.Handler { return v }

// WithGroup is as in slog.Handler.
func (v *voice) WithGroup(string) slog.Handler { return v }
