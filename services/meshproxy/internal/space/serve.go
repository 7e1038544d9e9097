package space

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/netpass"
	"github.com/shoalproject/shoal/internal/run"
)

// sayLimit ends a connection that does not take a word.
const sayLimit = time.Second

// acceptWait is until an agent is taken that there was no descriptor for.
const acceptWait = 50 * time.Millisecond

// Serve takes containers from the agent until ctx ends. The socket's mode is the authorization.
func (s *Spaces) Serve(ctx context.Context, meshSocket string) error {
	l, err := s.env.Net.Listen(ctx, "unix", netpass.Socket(meshSocket))
	if err != nil {
		return fmt.Errorf("listen on %s: %w", netpass.Socket(meshSocket), err)
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	defer l.Close()
	agents := run.NewSpawner(s.env.Log)
	var lack run.Lacks
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return agents.Wait(context.WithoutCancel(ctx))
		}
		if err != nil && lack.Tell(s.env.Log, s.env.Now(), err) { // the end of the process would be that of the connections that it carries
			_ = run.Sleep(ctx, acceptWait) // an end closes the listener, and that is seen above
			continue
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", netpass.Socket(meshSocket), err)
		}
		agents.Go(ctx, "agent", func(ctx context.Context) error {
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			defer conn.Close()
			s.listen(conn)
			return nil
		})
	}
}

// listen hears one agent out. What it has handed over stays when it goes: its containers run on.
func (s *Spaces) listen(conn net.Conn) {
	var mu sync.Mutex // words must not be mixed up
	say := func(verb netpass.Verb, id string) {
		mu.Lock()
		defer mu.Unlock()
		_ = conn.SetWriteDeadline(time.Now().Add(sayLimit))       // else it would hold up every other container
		_ = netpass.Send(conn, netpass.Frame{Verb: verb, ID: id}) // who has gone does not wait for it
	}
	for {
		f, err := netpass.Receive(conn)
		if err != nil {
			return
		}
		switch f.Verb {
		case netpass.Have:
			s.Take(f.ID, f.Socket, func() { say(netpass.Ready, f.ID) })
		case netpass.Gone:
			s.Drop(f.ID)
			say(netpass.Gone, f.ID)
		default: // of a newer agent
		}
	}
}
