package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

const (
	// sipSize is what carries a direction that says little: two of them are all the memory that an idle connection holds.
	sipSize = 4 << 10
	// bulk is how many full sips in a row show that a direction has much to say. Then the kernel moves it from socket to socket.
	bulk = 4
	// gulp is how much of it is moved at once.
	gulp = 4 << 20
)

// pair is a client's connection and its task's.
type pair struct {
	client, task net.Conn
	guest        *guest
	ended        atomic.Int32 // directions that have come to their end
}

// cut gives both up. The client hears a reset, not the end of an answer; and so does the task, not the end of what was asked.
func (s *pair) cut() {
	reset(s.client)
	reset(s.task)
}

// splice joins a pair until both directions have ended, an error, or ctx. A half-closed side is half-closed on the other, an
// unclean end is passed on as one. However long both are silent, they are not given up: the kernel's keep-alive ends what is
// dead. It closes both.
func (f *Forwarder) splice(ctx context.Context, s *pair) {
	defer context.AfterFunc(ctx, s.cut)()
	back := run.Async(ctx, func(context.Context) (struct{}, error) {
		f.transfer(s, s.client, s.task)
		return struct{}{}, nil
	})
	f.transfer(s, s.task, s.client)
	<-back
	_, _ = s.client.Close(), s.task.Close() // all was said
}

// transfer carries one direction to its end. The second end needs no half-close: both are closed then.
func (f *Forwarder) transfer(s *pair, dst, src net.Conn) {
	err := f.copy(dst, src, s.guest)
	if err == nil && s.ended.Add(1) == 1 {
		err = closeWrite(dst)
	}
	if err != nil {
		s.cut()
	}
}

// copy reads and writes while there is little to carry, which is cheaper than a pipe in between. The rest, if there is much, never
// enters this process: between two TCP sockets io.Copy splices.
func (f *Forwarder) copy(dst, src net.Conn, g *guest) error {
	for {
		if err := f.sip(dst, src, g); !errors.Is(err, errBulk) {
			return err
		}
		if ended, err := pour(dst, src, f.bounds.pause); ended || err != nil {
			return err
		}
	}
}

// pour carries a direction that has much to say, until it ends or has been silent for long: it gives the pipe in between back then, so
// that what was busy once holds no more than what never was.
func pour(dst, src net.Conn, pause time.Duration) (ended bool, err error) {
	for {
		if err := src.SetReadDeadline(time.Now().Add(pause)); err != nil {
			return false, err
		}
		switch _, err := io.CopyN(dst, src, gulp); {
		case errors.Is(err, io.EOF):
			return true, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, src.SetReadDeadline(time.Time{})
		case err != nil:
			return false, err
		}
	}
}

var errBulk = errors.New("much to say") // a sentinel, never changed

func (f *Forwarder) sip(dst, src net.Conn, g *guest) error {
	buf := f.sips.Get().(*[sipSize]byte)
	defer f.sips.Put(buf)
	for full := 0; full < bulk; {
		n, err := src.Read(buf[:])
		if n > 0 {
			g.speaks()
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if full++; n < sipSize {
			full = 0
		}
	}
	return errBulk
}

// closeWrite half-closes. What cannot be half-closed (a simulated connection) is closed.
func closeWrite(conn net.Conn) error {
	if h, ok := conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return conn.Close()
}
