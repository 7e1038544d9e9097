package simnet

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// probeTime is how long a connection is idle before its host asks whether the other end is still there (Go's default).
const probeTime = 15 * time.Second

// conn is one end of a stream.
type conn struct {
	id            uint64
	sock          *Sockets
	peer          *conn
	out           *half // to the peer
	local, remote net.Addr

	in       []byte // arrived and unread
	eof      bool   // the peer's FIN has arrived
	err      error  // a reset has arrived
	finished bool   // our FIN is sent
	closed   bool   // this end is no more
	dead     bool   // because its process is no more
	gone     bool   // because its host has crashed: the peer was not told

	readable, writable          sync.Cond
	readDeadline, writeDeadline deadline
	probe                       *time.Timer

	patience time.Duration // SetUserTimeout; 0: the kernel's, longer than any test
	waiting  bool          // something was sent that could not be acknowledged
	unheard  *time.Timer   // of patience, while waiting
}

// newConn needs the lock.
func (n *Net) newConn(s *Sockets) *conn {
	c := &conn{id: n.nextID(), sock: s}
	c.readable.L, c.writable.L = &n.mu, &n.mu
	n.conns[c] = struct{}{}
	s.conns[c] = struct{}{}
	return c
}

func (c *conn) host() *Host { return c.sock.host }

func (c *conn) lock() func() {
	c.sock.host.net.mu.Lock()
	return c.sock.host.net.mu.Unlock
}

// Read gives what has arrived, or waits.
func (c *conn) Read(p []byte) (int, error) {
	defer c.lock()()
	for {
		if err := c.unusable(&c.readDeadline); err != nil {
			return 0, opError("read", c.local.Network(), c.remote, err)
		}
		switch {
		case len(p) == 0:
			return 0, nil
		case len(c.in) > 0:
			k := copy(p, c.in)
			c.in = c.in[k:]
			if len(c.in) == 0 {
				c.in = nil
			}
			c.peer.out.size -= k
			c.peer.writable.Broadcast()
			return k, nil
		case c.err != nil:
			return 0, opError("read", c.local.Network(), c.remote, os.NewSyscallError("read", c.err))
		case c.eof:
			return 0, io.EOF
		}
		c.readable.Wait()
	}
}

// Write waits for room in the window, never for the peer itself.
func (c *conn) Write(p []byte) (int, error) {
	defer c.lock()()
	done := 0
	for {
		if err := c.unusable(&c.writeDeadline); err != nil {
			return done, opError("write", c.local.Network(), c.remote, err)
		}
		if c.err != nil || c.finished {
			return done, opError("write", c.local.Network(), c.remote, os.NewSyscallError("write", errPipe))
		}
		if done == len(p) {
			return done, nil
		}
		if room := Window - c.out.size; room > 0 {
			k := min(room, len(p)-done)
			c.out.send(segData, p[done:done+k])
			done += k
			if done == len(p) {
				return done, nil
			}
			continue
		}
		c.writable.Wait()
	}
}

// unusable says why this end cannot be used at all, or not any longer.
func (c *conn) unusable(d *deadline) error {
	switch {
	case c.dead:
		return errDead
	case c.closed:
		return net.ErrClosed
	case d.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Close ends both directions; what was written still arrives. With something unread the peer gets a reset, as on Linux.
func (c *conn) Close() error {
	defer c.lock()()
	if c.closed {
		return opError("close", c.local.Network(), c.remote, net.ErrClosed)
	}
	c.shut()
	return nil
}

// CloseWrite ends our direction only.
func (c *conn) CloseWrite() error {
	defer c.lock()()
	if c.closed {
		return opError("close", c.local.Network(), c.remote, net.ErrClosed)
	}
	c.finish()
	return nil
}

// finish sends our FIN, once. Needs the lock.
func (c *conn) finish() {
	if !c.finished && c.err == nil {
		c.finished = true
		c.out.send(segFin, nil)
	}
	c.writable.Broadcast()
}

// shut is Close. Needs the lock.
func (c *conn) shut() {
	if len(c.in) > 0 {
		c.abort()
		return
	}
	c.finish()
	c.end()
}

// abort closes with a reset. Needs the lock.
func (c *conn) abort() {
	if c.closed {
		return
	}
	if c.err == nil {
		c.out.send(segReset, nil)
	}
	c.end()
}

// vanish is this end in its host's crash. Needs the lock.
func (c *conn) vanish() {
	c.gone = true
	c.sock.host.net.stats.Orphaned++
	c.out.drop()
	c.end()
}

// end needs the lock. The end stays known to the network while something that it has sent is on its way.
func (c *conn) end() {
	c.closed = true
	c.peer.out.size -= len(c.in)
	c.in = nil
	c.stopTimers()
	delete(c.sock.conns, c)
	c.readable.Broadcast()
	c.writable.Broadcast()
	c.peer.writable.Broadcast()
	if len(c.out.flight) == 0 {
		c.forget()
	}
}

func (c *conn) forget() { delete(c.sock.host.net.conns, c) }

func (c *conn) stopTimers() {
	for _, t := range []*time.Timer{c.readDeadline.timer, c.writeDeadline.timer, c.probe, c.unheard} {
		if t != nil {
			t.Stop()
		}
	}
}

// arriveReset needs the lock. What has arrived before stays readable.
func (c *conn) arriveReset() {
	if c.closed || c.err != nil {
		return
	}
	c.err = errReset
	c.sock.host.net.stats.Resets++
	c.out.drop()
	c.readable.Broadcast()
	c.writable.Broadcast()
}

// probeLater asks, once, after the keepalive time, whether the other end is still there. Needs the lock.
func (c *conn) probeLater() {
	if c.probe != nil {
		c.probe.Stop()
	}
	c.probe = time.AfterFunc(probeTime, func() {
		defer c.lock()()
		if !c.closed && c.err == nil {
			c.out.send(segProbe, nil)
		}
	})
}

// LocalAddr is a *net.TCPAddr or *net.UnixAddr.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the peer's.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline holds for waiting reads, too.
func (c *conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.readDeadline, &c.readable, t)
}

// SetWriteDeadline holds for waiting writes, too.
func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.writeDeadline, &c.writable, t)
}

func (c *conn) setDeadline(d *deadline, cond *sync.Cond, t time.Time) error {
	defer c.lock()()
	if c.closed {
		return opError("set", c.local.Network(), c.remote, net.ErrClosed)
	}
	d.set(cond, t)
	return nil
}

// deadline wakes a cond when it passes. Its methods need the cond's lock.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(cond *sync.Cond, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, func() {
			cond.L.Lock()
			defer cond.L.Unlock()
			cond.Broadcast()
		})
	}
	cond.Broadcast()
}
