package forward

import "time"

// Bound has a port have so few places, and cuts what says nothing for so long when they are scarce. Call it before Apply.
func (f *Forwarder) Bound(places int, silent time.Duration) {
	f.bounds = bounds{places, silent, pauseTime}
}

// Pause has what carries much be given back after so short a silence. Call it before Apply.
func (f *Forwarder) Pause(pause time.Duration) { f.bounds.pause = pause }

// Rooms counts the buffers for datagrams that sessions hold.
func (f *Forwarder) Rooms() int64 { return f.rooms.held.Load() }
