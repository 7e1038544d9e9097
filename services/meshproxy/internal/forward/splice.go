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

// slab is how much goes between two looks at the clock. Between two TCP sockets it never enters this process: io.Copy
// splices.
const slab = 1 << 20

var errIdle = errors.New("idle for too long") // a sentinel, never changed

// splice joins two connections until both directions have ended, an error, or ctx. A half-closed side is half-closed on the
// other. It closes both.
func splice(ctx context.Context, a, b net.Conn) {
	cut := func() { _, _ = a.Close(), b.Close() } // both are given up; there is nobody to tell
	defer cut()
	defer context.AfterFunc(ctx, cut)()
	var moved atomic.Uint64
	back := run.Async(ctx, func(context.Context) (struct{}, error) {
		err := transfer(a, b, &moved)
		if err != nil {
			reset(a)
			cut()
		}
		return struct{}{}, err
	})
	if err := transfer(b, a, &moved); err != nil {
		reset(a)
		cut()
	}
	<-back
}

// transfer copies one direction to its end. Moved counts what either direction has done, so that a long answer keeps its
// silent question open. Silence is an error when it has lasted for two idle limits: one may end just before the other
// direction's count.
func transfer(dst, src net.Conn, moved *atomic.Uint64) error {
	last, quiet := moved.Load(), 0
	for {
		if err := src.SetReadDeadline(time.Now().Add(idleLimit)); err != nil {
			return err
		}
		n, err := io.Copy(dst, io.LimitReader(src, slab))
		if n > 0 {
			moved.Add(1)
		}
		switch {
		case err == nil && n < slab:
			return closeWrite(dst)
		case errors.Is(err, os.ErrDeadlineExceeded):
			if last, quiet = silence(moved, last, quiet); quiet > 1 {
				return errIdle
			}
		case err != nil:
			return err
		}
	}
}

func silence(moved *atomic.Uint64, last uint64, quiet int) (uint64, int) {
	now := moved.Load()
	if now != last {
		return now, 0
	}
	return now, quiet + 1
}

// closeWrite half-closes. What cannot be half-closed (a simulated connection) is closed.
func closeWrite(conn net.Conn) error {
	if h, ok := conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return conn.Close()
}
