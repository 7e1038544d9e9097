package simnet

import (
	"syscall"
	"time"
)

// SetUserTimeout is TCP_USER_TIMEOUT: the connection is given up when what was sent is not acknowledged within d, because
// the way there or the way back is closed. A paused host's own clock stands still.
func (c *conn) SetUserTimeout(d time.Duration) {
	defer c.lock()()
	c.patience = d
}

// await begins to count when something is sent that cannot be acknowledged now. Needs the lock.
func (h *half) await() {
	c := h.from
	if c.patience <= 0 || c.closed || c.waiting || h.acknowledged() {
		return
	}
	c.waiting = true
	c.unheard = time.AfterFunc(c.patience, func() {
		defer c.lock()()
		c.waiting = false
		switch {
		case c.closed || c.err != nil || h.acknowledged():
		case h.path.from.paused:
			h.await()
		default:
			c.giveUp()
		}
	})
}

// acknowledged says that nothing is held up on its way, and that an answer gets through.
func (h *half) acknowledged() bool {
	back := h.to.out
	return back == nil || back.path.open() && (len(h.flight) == 0 || h.path.open())
}

// giveUp ends the connection here; the other end is not told, as nothing gets through to it. Needs the lock.
func (c *conn) giveUp() {
	c.err = errGaveUp
	c.sock.host.net.stats.GivenUp++
	c.out.drop()
	c.readable.Broadcast()
	c.writable.Broadcast()
}

// errGaveUp is what Linux says of such a connection.
const errGaveUp = syscall.ETIMEDOUT
