package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

// carry is to a link what the relay is to those that its loops have: after a task that did not answer, and in the simulation.
// It joins a TCP connection and a link until both directions have ended, an error, or ctx. It closes the connection. It
// is true if the stream has ended whole, so that the link can carry another; else the link is closed. The guest is whose place it is.
func (f *Forwarder) carry(ctx context.Context, conn net.Conn, l *link, g *guest) bool {
	cut := func() {
		_ = conn.Close() // given up
		l.close()
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, cut)
	back := run.Async(ctx, func(context.Context) (struct{}, error) {
		err := f.fromLink(conn, l, g)
		if err != nil {
			reset(conn)
			cut()
		}
		return struct{}{}, err
	})
	err := f.toLink(l, conn, g)
	if err != nil {
		cut()
	}
	err = errors.Join(err, (<-back).Err)
	return stop() && err == nil && l.SetDeadline(time.Time{}) == nil
}

// toLink sends what the connection says, chunk by chunk. However long it is silent, it is not given up: the kernel's
// keep-alive ends what is dead.
func (f *Forwarder) toLink(l *link, src net.Conn, g *guest) error {
	buf := f.buffers.Get().(*[bufferSize]byte)
	defer f.buffers.Put(buf)
	for {
		n, err := src.Read(buf[2:])
		if n > 0 {
			g.speaks()
			if err := l.chunk(buf[:], n); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return l.chunk(buf[:], 0)
		case err != nil:
			return err
		}
	}
}

// fromLink writes what the peer says to the connection, and half-closes it at the end.
func (f *Forwarder) fromLink(dst net.Conn, l *link, g *guest) error {
	for {
		n, err := l.next()
		if err != nil {
			return err
		}
		if n == 0 {
			return closeWrite(dst)
		}
		g.speaks()
		if err := l.pour(dst, n); err != nil {
			return err
		}
	}
}
