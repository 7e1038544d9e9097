package hollow

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// atOnce is how many machines of a fleet are about to connect at the same time.
const atOnce = 48

// gate lets a fleet's machines connect a few at a time. Real ones have a processor each for their part of a handshake; in one
// process thousands at once would each take so long that their servers, or they themselves, give all of them up.
type gate chan struct{}

func newGate() gate { return make(gate, atOnce) }

// inTime is how much of a machine's time to connect must be left when it gets its place.
const inTime = 400 * time.Millisecond

// dial connects when there is a place. Who waits costs nothing, while each try of an agent costs what a handshake does; so it waits
// for as long as it may, and then comes again as it does at a server that is full. It takes no place with so little time left
// that what it waited for would be for nothing. The place is free again when the other side has answered twice, which ends a
// handshake of TLS 1.3, or when the connection ends.
func (g gate) dial(ctx context.Context, d net.Dialer, kind, address string) (net.Conn, error) {
	places := g
	var late <-chan time.Time
	if end, ok := ctx.Deadline(); ok {
		timer := time.NewTimer(time.Until(end) - inTime)
		defer timer.Stop()
		late = timer.C
	}
	for entered := false; !entered; {
		select {
		case places <- struct{}{}:
			entered = true
		case <-late:
			places, late = nil, nil // nobody is let in by it
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: kind, Err: syscall.EAGAIN}
		}
	}
	leave := sync.OnceFunc(func() { <-g })
	conn, err := d.DialContext(ctx, kind, address)
	if err != nil {
		leave()
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		leave()
		return conn, nil
	}
	return &guest{TCPConn: tcp, leave: leave}, nil
}

// guest is a connection that may still be about to be made.
type guest struct {
	*net.TCPConn // as it is: the agents set options of it
	leave        func()

	in      atomic.Bool // the turn is over
	mu      sync.Mutex  // guards below
	asked   bool        // something was written that is not answered yet
	answers int
}

func (c *guest) Write(b []byte) (int, error) {
	c.note(func() { c.asked = true })
	return c.TCPConn.Write(b)
}

func (c *guest) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.note(func() {
		if n > 0 && c.asked {
			c.asked = false
			c.answers++
		}
	})
	return n, err
}

func (c *guest) Close() error {
	c.leave()
	return c.TCPConn.Close()
}

// note keeps count, until the turn is over.
func (c *guest) note(what func()) {
	if c.in.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if what(); c.answers == 2 {
		c.in.Store(true)
		c.leave()
	}
}
