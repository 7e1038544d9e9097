package apply

import (
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/silence"
)

// Told is the model as the cluster has told it; nil before the first.
func (l *Loop) Told() *mesh.Model {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.model
}

// Shown are the published ports as the machine serves them now; nil before the first.
func (l *Loop) Shown() *mesh.Published {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shown
}

// LeaveOut has no new connection led to the named machines from now on, and to others again.
func (l *Loop) LeaveOut(nodes map[string]bool) {
	l.mu.Lock()
	l.silent, l.view = nodes, nil
	l.mu.Unlock()
	l.poke()
}

// current is the model that is to be in force. It is the same one until something changes.
func (l *Loop) current() *mesh.Model {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recalls = l.remembered
	if l.view == nil {
		l.view = silence.Without(l.model, l.silent)
	}
	return l.view
}
