package hollow

import (
	"sync"
	"time"
)

// Made tells when the container of each task was made, from now on.
func (f *Fleet) Made() *Times {
	t := &Times{of: map[string]time.Time{}}
	for _, n := range f.nodes {
		n.Host.OnMade(t.note)
	}
	return t
}

// Times is when containers were made, by task.
type Times struct {
	mu sync.Mutex // guards of
	of map[string]time.Time
}

func (t *Times) note(task string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of[task] = now
}

// Of is when the container of a task was made; zero: not yet.
func (t *Times) Of(task string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of[task]
}
