package forward

import (
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// admit needs the lock. It swaps who may call, and ends what those have who may no longer, as the kernel does at the task: there
// a client is not known where the task does not see its address.
func (p *port) admit(callers *mesh.Callers) {
	if p.callers == callers {
		return
	}
	p.callers = callers
	for g := range p.guests {
		if !callers.Allow(g.client) {
			g.sendOff()
			p.dismiss(g)
		}
	}
	for key, s := range p.sessions {
		if !callers.Allow(s.client) {
			p.finish(key, s)
		}
	}
}
