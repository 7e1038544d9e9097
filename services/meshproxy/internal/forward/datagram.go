package forward

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/shoalproject/shoal/services/meshproxy/internal/packet"
)

// chunkHead is the room before a datagram, for its length where it goes on by a link.
const chunkHead = 2

// room holds the largest datagram. Sessions share some: one that waits has none.
type room [chunkHead + maxPacket]byte

// rooms keeps those that nobody has at the moment.
type rooms struct {
	idle sync.Pool
	held atomic.Int64 // by sessions
}

func (r *rooms) take() *room {
	r.held.Add(1)
	if buf, ok := r.idle.Get().(*room); ok {
		return buf
	}
	return new(room)
}

func (r *rooms) give(buf *room) {
	r.held.Add(-1)
	r.idle.Put(buf)
}

// datagrams gives what reads one datagram after the other from the way to a task and hands each to use, with the head before it. What
// is handed over is good until use returns.
func (f *Forwarder) datagrams(u upstream) func(use func(data []byte) error) error {
	if u.link != nil {
		return func(use func([]byte) error) error { return f.fromChunk(u.link, use) }
	}
	if r, ok := packet.ReaderOf(u.conn); ok {
		return func(use func([]byte) error) error { return f.fromSocket(r, use) }
	}
	return func(use func([]byte) error) error { return f.fromConn(u.conn, use) }
}

func (f *Forwarder) fromChunk(l *link, use func([]byte) error) error {
	n, err := l.next()
	if err != nil || n == 0 {
		return errors.Join(err, io.EOF)
	}
	buf := f.rooms.take()
	defer f.rooms.give(buf)
	if _, err := io.ReadFull(l.in, buf[chunkHead:chunkHead+n]); err != nil {
		return err
	}
	return use(buf[:chunkHead+n])
}

// fromSocket takes a buffer when there is something to read, and not before.
func (f *Forwarder) fromSocket(r packet.Reader, use func([]byte) error) error {
	var buf *room
	n, err := r.Read(func() []byte {
		if buf == nil {
			buf = f.rooms.take()
		}
		return buf[chunkHead:]
	}, func() {
		f.rooms.give(buf)
		buf = nil
	})
	if buf != nil {
		defer f.rooms.give(buf)
	}
	if err != nil {
		return err
	}
	return use(buf[:chunkHead+n])
}

// fromConn reads what is no socket of the system, as in the simulation.
func (f *Forwarder) fromConn(conn net.Conn, use func([]byte) error) error {
	buf := f.rooms.take()
	defer f.rooms.give(buf)
	n, err := conn.Read(buf[chunkHead:])
	if err != nil {
		return err
	}
	return use(buf[:chunkHead+n])
}
