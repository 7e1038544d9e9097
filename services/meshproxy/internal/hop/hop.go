// Package hop is a TLS connection between meshproxies without its socket: what came goes in, and what is to be sent comes out.
//
// It owns the connection from Take on, with its keys and what of a record or a chunk is not whole yet. It never reads, writes or waits: whoever
// has the socket does. A Seal is for one goroutine at a time; its connection may be closed by any.
//
// It is crypto/tls itself that seals and opens, over memory. When it finds none there, it is told so by an error that is temporary
// (net.Error), which it hands on and forgets (crypto/tls, Conn.readRecordOrCCS); what it had of a record stays with it.
package hop

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Below makes a connection over which TLS can be made that is to be taken later.
func Below(raw net.Conn) net.Conn { return &below{Conn: raw} }

type below struct {
	mu     sync.Mutex // guards below, but for who reads and writes
	closed bool
	net.Conn
}

func (b *below) Close() error {
	b.mu.Lock()
	b.closed = true
	raw := b.Conn
	b.mu.Unlock()
	return raw.Close()
}

func (b *below) Exchange(with func(net.Conn) net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.Conn = with(b.Conn)
	}
}

// exchanger is a connection below TLS that can have another one below it from now on. It says so to with, unless it is closed.
type exchanger interface {
	Exchange(with func(raw net.Conn) net.Conn)
}

// Takes says that a connection can be taken, if what is below it is able to give its socket away.
func Takes(conn net.Conn, able func(raw net.Conn) bool) bool {
	over, ok := conn.(*tls.Conn)
	if !ok {
		return false
	}
	lower, ok := over.NetConn().(exchanger)
	if !ok {
		return false
	}
	can := false
	lower.Exchange(func(raw net.Conn) net.Conn {
		can = able(raw)
		return raw
	})
	return can
}

// Seal is one end of a connection.
type Seal struct {
	over *tls.Conn
	wire wire
}

// Take has the connection, whose handshake is done, live in memory. What was below it is given to detach, which says where it has put
// the socket; false if it could not, and then nothing has changed. Closed is called, once, when others close the connection.
func Take(conn net.Conn, detach func(raw net.Conn) bool, closed func()) (*Seal, bool) {
	over, ok := conn.(*tls.Conn)
	if !ok {
		return nil, false
	}
	lower, ok := over.NetConn().(exchanger)
	if !ok {
		return nil, false
	}
	s := &Seal{over: over}
	taken := false
	lower.Exchange(func(raw net.Conn) net.Conn {
		s.wire.local, s.wire.remote, s.wire.closed = raw.LocalAddr(), raw.RemoteAddr(), closed
		if taken = detach(raw); !taken {
			return raw
		}
		return &s.wire
	})
	return s, taken
}

// Give has the connection live over raw again, which is closed if it was closed meanwhile. Nothing may be left of Out.
func (s *Seal) Give(raw net.Conn) net.Conn {
	given := false
	if lower, ok := s.over.NetConn().(exchanger); ok {
		lower.Exchange(func(net.Conn) net.Conn {
			given = true
			return raw
		})
	}
	if !given {
		_ = raw.Close() // nobody has it
	}
	return s.over
}

// Open takes what came, and writes what it says to buf, which has room for that and a record more. With an error it is over, and what it
// returns was said before.
func (s *Seal) Open(came, buf []byte) (n int, err error) {
	s.wire.in = came
	for err == nil && n < len(buf) {
		var more int
		more, err = s.over.Read(buf[n:])
		n += more
	}
	if errors.Is(err, errNone) {
		return n, nil
	}
	s.wire.in = nil // it is not ours
	if err == nil {
		err = io.ErrShortBuffer
	}
	return n, err
}

// Say seals data, behind what is to be sent.
func (s *Seal) Say(data []byte) error {
	_, err := s.over.Write(data)
	return err
}

// Out is what is to be sent. Put leaves what is left of it, and may leave an empty slice, so that the next has its memory.
func (s *Seal) Out() []byte { return s.wire.out }

// Put is for who has sent some of Out.
func (s *Seal) Put(rest []byte) { s.wire.out = rest }

// Close says farewell, into Out, and ends the connection. Nobody is told.
func (s *Seal) Close() {
	s.wire.over.Store(true)
	_ = s.over.Close() // in memory
}

// wire is below TLS.
type wire struct {
	in, out       []byte
	local, remote net.Addr
	closed        func()
	over          atomic.Bool
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.in) == 0 {
		return 0, errNone
	}
	n := copy(p, w.in)
	w.in = w.in[n:]
	return n, nil
}

func (w *wire) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

func (w *wire) Close() error {
	if !w.over.Swap(true) {
		w.closed()
	}
	return nil
}

func (w *wire) LocalAddr() net.Addr              { return w.local }
func (w *wire) RemoteAddr() net.Addr             { return w.remote }
func (w *wire) SetDeadline(time.Time) error      { return nil } // nothing waits here
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// none is what TLS finds when there is nothing for now.
type none struct{}

var errNone net.Error = none{}

func (none) Error() string   { return "nothing for now" }
func (none) Timeout() bool   { return true }
func (none) Temporary() bool { return true }
