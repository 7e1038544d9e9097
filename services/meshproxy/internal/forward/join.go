package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/relay"
)

// join carries what a client and its task say to each other, until both directions have ended, an error, or ctx. A half-closed side
// is half-closed on the other, an unclean end is passed on as one. However long both are silent, they are not given up: the
// kernel's keep-alive ends what is dead. It closes both.
func (p *port) join(ctx context.Context, client, task net.Conn, g *guest) {
	if !relay.Able(client) || !relay.Able(task) {
		p.f.exchange(ctx, &pair{client: client, task: task, guest: g})
		return
	}
	pair, err := p.f.relay.Join(client, task, &g.spoken)
	if err != nil {
		p.f.env.Log.Warn("connection not carried", "port", p.Listener.String(), "error", err)
		return
	}
	p.sit(g, pair)
	select {
	case <-pair.Done():
	case <-ctx.Done():
		pair.Reset()
		<-pair.Done()
	}
}

// pair is a client's connection and its task's that are no sockets of the system, as in the simulation.
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

// exchange is to a pair what the relay is to sockets.
func (f *Forwarder) exchange(ctx context.Context, s *pair) {
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

func (f *Forwarder) copy(dst, src net.Conn, g *guest) error {
	buf := f.buffers.Get().(*[bufferSize]byte)
	defer f.buffers.Put(buf)
	for {
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
	}
}

// closeWrite half-closes. What cannot be half-closed (a simulated connection) is closed.
func closeWrite(conn net.Conn) error {
	if h, ok := conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return conn.Close()
}
