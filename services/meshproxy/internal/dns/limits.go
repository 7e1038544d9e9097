package dns

import (
	"sync"
	"time"
)

// What one container may do at once. They are far above what programs need, and far below what would harm the others.
const (
	perSecond      = 2000 // questions, over time
	burst          = 4000 // questions, at once
	mostForwarded  = 64   // questions that wait for outside
	mostStreams    = 32   // TCP connections
	mostClients    = 4096 // whose use is remembered
	allForwarded   = 1024 // of all containers together
	forgetInactive = time.Minute
)

// limits counts what each container uses.
type limits struct {
	mu        sync.Mutex // guards all below
	clients   map[string]*use
	forwarded int
}

type use struct {
	tokens             float64
	at                 time.Time
	forwarded, streams int
}

func newLimits() *limits { return &limits{clients: map[string]*use{}} }

// of needs the lock.
func (l *limits) of(task string) *use {
	u := l.clients[task]
	if u == nil {
		if len(l.clients) >= mostClients {
			l.forget()
		}
		u = &use{tokens: burst, at: time.Now()}
		l.clients[task] = u
	}
	return u
}

// forget leaves out who has not asked for a while.
func (l *limits) forget() {
	for task, u := range l.clients {
		if u.forwarded+u.streams == 0 && time.Since(u.at) > forgetInactive {
			delete(l.clients, task)
		}
	}
}

// take says whether one more question may be answered.
func (l *limits) take(task string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	u, now := l.of(task), time.Now()
	u.tokens = min(burst, u.tokens+now.Sub(u.at).Seconds()*perSecond)
	u.at = now
	if u.tokens < 1 {
		return false
	}
	u.tokens--
	return true
}

// begin says whether one more may be asked outside; end gives it back.
func (l *limits) begin(task string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.of(task)
	if u.forwarded >= mostForwarded || l.forwarded >= allForwarded {
		return false
	}
	u.forwarded++
	l.forwarded++
	return true
}

func (l *limits) end(task string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(task).forwarded--
	l.forwarded--
}

// open says whether one more connection may be held; close gives it back.
func (l *limits) open(task string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.of(task)
	if u.streams >= mostStreams {
		return false
	}
	u.streams++
	return true
}

func (l *limits) close(task string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(task).streams--
}
