package forward

import "time"

// Bound has a port have so few places, and cuts what says nothing for so long when they are scarce. Call it before Apply.
func (f *Forwarder) Bound(places int, silent time.Duration) {
	f.bounds.places, f.bounds.silent = places, silent
}

// Rooms counts the buffers for datagrams that sessions hold.
func (f *Forwarder) Rooms() int64 { return f.rooms.held.Load() }

// Backlog has a port keep so many bytes of datagrams that wait. Call it before Apply.
func (f *Forwarder) Backlog(bytes int) { f.bounds.backlog = bytes }

// Waiting counts the bytes of datagrams that wait at all ports.
func (f *Forwarder) Waiting() (bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.ports {
		p.backlog.mu.Lock()
		bytes += p.backlog.bytes
		p.backlog.mu.Unlock()
	}
	return bytes
}

// Last has connections go on for so long while the forwarder stops. Call it before Apply.
func (f *Forwarder) Last(moment time.Duration) { f.bounds.last = moment }

// Inbound counts the places that streams from peers have.
func (f *Forwarder) Inbound() int { return len(f.inbound) }
