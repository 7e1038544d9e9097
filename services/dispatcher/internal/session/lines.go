package session

import (
	"sync"

	"github.com/shoalproject/shoal/internal/errs"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// lines are the open sessions by machine.
type lines struct {
	mu      sync.Mutex // guards below
	of      map[string]*line
	ever    uint64             // sessions that were opened
	waiting map[*line]struct{} // for the mesh's barrier to rise
}

// enter notes an open session; a newer one of the same machine takes its place.
func (s *lines) enter(l *line) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of, s.waiting = map[string]*line{}, map[*line]struct{}{}
	}
	s.ever++
	l.phase = phase(s.ever)
	if old := s.of[l.node]; old == nil || old.number < l.number {
		s.of[l.node] = l
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting, l)
		if s.of[l.node] == l {
			delete(s.of, l.node)
		}
	}
}

// ring tells the sessions of some machines that there may be something new for them.
func (s *lines) ring(nodes map[string]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node := range nodes {
		if l := s.of[node]; l != nil {
			l.box.refresh()
		}
	}
}

func (s *lines) ringAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.of {
		l.box.refresh()
	}
}

// awaitBarrier notes that a session waits for the barrier, or no longer does. It reports whether it was noted first now.
func (s *lines) awaitBarrier(l *line, waits bool) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !waits {
		delete(s.waiting, l)
		return false
	}
	_, noted := s.waiting[l]
	s.waiting[l] = struct{}{}
	return !noted
}

// ringWaiting tells those that wait for the barrier that it has risen.
func (s *lines) ringWaiting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.waiting {
		l.box.refresh()
	}
}

// endAll ends all sessions.
func (s *lines) endAll(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.of {
		l.end(reason)
	}
}

func (s *lines) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.of)
}

func (s *lines) get(node string) *line {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[node]
}

// Ask asks a machine for a data stream, on its session. Unavailable: its session is not here, or no more. Exhausted: it
// does not keep up with what it is asked.
func (s *Server) Ask(node string, m *dispatcherv1.OpenStream) error {
	l := s.lines.get(node)
	if l == nil {
		return errs.New(errs.Unavailable, "the task's machine has just left this dispatcher")
	}
	if !l.box.ask(m) {
		return errs.New(errs.Exhausted, "the task's machine has been asked for %d streams and has not answered", maxAsked)
	}
	return nil
}

// Draining is closed when all sessions are to end.
func (s *Server) Draining() <-chan struct{} { return s.draining }
