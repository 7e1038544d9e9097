package forward

import (
	"net"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// admit needs the lock. It swaps who may call, and ends what those have who may no longer, as the kernel does at the task: there
// a client is not known where the task does not see its address.
func (p *port) admit(callers *mesh.Callers) {
	if p.callers == callers {
		return
	}
	p.callers = callers
	for conn, client := range p.clients {
		if !callers.Allow(client) {
			reset(conn)
			delete(p.clients, conn)
		}
	}
	for key, s := range p.sessions {
		if !callers.Allow(s.client) {
			s.cancel()
			delete(p.sessions, key)
		}
	}
}

// enter notes a client, if it may call.
func (p *port) enter(conn net.Conn) bool {
	client := addressOf(conn.RemoteAddr()).Addr()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.callers.Allow(client) {
		return false
	}
	p.clients[conn] = client
	return true
}

func (p *port) leave(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.clients, conn)
}
