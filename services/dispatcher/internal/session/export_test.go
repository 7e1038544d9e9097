package session

import "fmt"

// Crowd has so many machines more in session that never say anything.
func (s *Server) Crowd(n int) {
	for i := range n {
		s.lines.enter(&line{node: fmt.Sprintf("crowd%d", i), number: 1, box: newOutbox(), end: func(error) {}})
	}
}
