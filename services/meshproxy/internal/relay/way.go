package relay

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// sipSize is how much is read at once of a direction that says little.
	sipSize = 16 << 10
	// bulk is how many full sips in a row show that a direction has much to say. Then the kernel moves it from socket to socket.
	bulk = 4
	// turnSize is how much one direction may carry until the others of its loop have their turn.
	turnSize = 256 << 10
)

// way is one direction of a pair. It holds memory only while its destination takes less than its source says: a few bytes or a pipe.
type way struct {
	src, dst *end
	held     []byte // read, and not taken yet
	room     *[sipSize]byte
	pipe     *pipe
	full     int  // full sips in a row
	ends     bool // what is held, or its link is behind with, is the last
	over     bool // the source has ended, and all was taken
}

// step carries what can be carried now. More says that it has had its turn and could go on.
func (w *way) step(s *store) (more bool, err error) {
	for budget := turnSize; budget > 0; {
		if w.over || w.waits() {
			return false, nil
		}
		var n int
		var over bool
		switch {
		case w.src.link != nil:
			n, over, err = w.unseal(s)
		case w.dst.link != nil:
			n, over, err = w.seal(s)
		case w.pipe != nil:
			n, err = w.pour(s)
		default:
			n, over, err = w.sip(s)
		}
		if err != nil {
			return false, err
		}
		if over {
			w.over = true
			w.drop(s)
			return false, nil
		}
		budget -= n
	}
	return true, nil
}

// waits says that nothing can be done before an end is ready again.
func (w *way) waits() bool {
	switch {
	case len(w.held) > 0 || w.pipe != nil && w.pipe.holds > 0:
		return !w.dst.writable
	case w.src.link != nil:
		return !w.src.link.says()
	case w.dst.link != nil && (w.ends || w.dst.link.behind() > 0):
		return w.dst.link.behind() > 0 && !w.dst.writable
	}
	return !w.src.readable
}

// sip reads and writes, which is cheaper than a pipe in between while there is little to carry.
func (w *way) sip(s *store) (n int, over bool, err error) {
	if len(w.held) > 0 {
		n, err = w.unload(s)
		return n, false, err
	}
	n, over, err = w.src.read(s.scratch[:])
	if n == 0 || err != nil {
		return 0, over, err
	}
	w.src.pair.speaks()
	if w.full++; n < sipSize {
		w.full = 0
	}
	if w.full == bulk {
		w.full = 0
		w.pipe = s.takePipe() // nil if there is none: then it goes on as before
	}
	taken := 0
	if w.dst.writable {
		if taken, err = w.dst.write(s.scratch[:n], w.src.ended && n < sipSize); err != nil {
			return 0, false, err
		}
	}
	if taken < n {
		w.room = s.takeRoom()
		w.held = w.room[:copy(w.room[:], s.scratch[taken:n])]
	}
	return n, false, nil
}

// unload writes what was held back.
func (w *way) unload(s *store) (n int, err error) {
	n, err = w.dst.write(w.held, false)
	if w.held = w.held[n:]; len(w.held) == 0 {
		if w.room != nil { // a head has none
			s.giveRoom(w.room)
		}
		w.room, w.held = nil, nil
	}
	return n, err
}

// pour carries what never enters this process. Where that ends the pipe is given back at once, and a read tells whether there is
// nothing now, the end, or urgent data (tcp(7)), of which the kernel says the same here.
func (w *way) pour(s *store) (n int, err error) {
	if len(w.held) > 0 {
		return w.unload(s)
	}
	if w.pipe.holds == 0 {
		switch n, err = w.pipe.fill(w.src.fd); {
		case errors.Is(err, unix.EAGAIN), n == 0 && err == nil:
			s.givePipe(w.pipe)
			w.pipe = nil
			return 0, nil
		case err != nil:
			return 0, os.NewSyscallError("splice", err)
		}
	}
	switch n, err = w.pipe.drain(w.dst.fd); {
	case errors.Is(err, unix.EAGAIN):
		w.dst.writable = false
		return 0, nil
	case err != nil:
		return 0, os.NewSyscallError("splice", err)
	}
	return n, nil
}

// drop gives back what it holds.
func (w *way) drop(s *store) {
	if w.room != nil {
		s.giveRoom(w.room)
	}
	if w.pipe != nil {
		s.givePipe(w.pipe)
	}
	w.room, w.held, w.pipe = nil, nil, nil
}
