package forward

import (
	"context"
	"io"
	"net"

	"github.com/shoalproject/shoal/internal/run"
)

// splice joins two connections until both directions have ended, an error, or ctx. A half-closed side is half-closed on the
// other, an unclean end is passed on as one. However long both are silent, they are not given up: the kernel's keep-alive ends
// what is dead. It closes both.
func splice(ctx context.Context, a, b net.Conn) {
	cut := func() { _, _ = a.Close(), b.Close() } // both are given up; there is nobody to tell
	defer cut()
	defer context.AfterFunc(ctx, cut)()
	back := run.Async(ctx, func(context.Context) (struct{}, error) {
		err := transfer(a, b)
		if err != nil {
			reset(a)
			cut()
		}
		return struct{}{}, err
	})
	if err := transfer(b, a); err != nil {
		reset(a)
		cut()
	}
	<-back
}

// transfer copies one direction to its end. Between two TCP sockets it never enters this process: io.Copy splices.
func transfer(dst, src net.Conn) error {
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return closeWrite(dst)
}

// closeWrite half-closes. What cannot be half-closed (a simulated connection) is closed.
func closeWrite(conn net.Conn) error {
	if h, ok := conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return conn.Close()
}
