package forward

import "time"

// Bound has a port have so few places, and cuts what says nothing for so long when they are scarce. Call it before Apply.
func (f *Forwarder) Bound(places int, silent time.Duration) {
	f.bounds = bounds{places, silent, pauseTime}
}

// Pause has what carries much be given back after so short a silence. Call it before Apply.
func (f *Forwarder) Pause(pause time.Duration) { f.bounds.pause = pause }

// Rooms counts the buffers for datagrams that are made from here on.
func (f *Forwarder) Rooms() func() int {
	made := make(chan struct{}, 1<<16)
	f.packets.New = func() any { made <- struct{}{}; return new(room) }
	return func() int { return len(made) }
}
