package mesh

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/netpass"
	"github.com/shoalproject/shoal/internal/run"
)

const (
	// redial is the wait before the next try of a meshproxy that does not listen.
	redial = 200 * time.Millisecond
	// sendLimit ends a connection that does not take a frame.
	sendLimit = 2 * time.Second
)

// Sockets are the containers' network namespaces.
type Sockets interface {
	Spaces() ([]string, error)
	Socket(id string) (*netpass.File, error)
}

// Spaces hands the meshproxy a socket of each container's namespace: all of them whenever it has come anew, then those that
// come. It is safe for concurrent use; run has one caller.
type Spaces struct {
	env     run.Env
	address string
	sockets Sockets

	mu      sync.Mutex // guards all below; held while a frame is sent, so that frames are whole
	conn    net.Conn   // nil while there is none
	waiting map[string]chan struct{}
}

// newSpaces makes one; see netpass.
func newSpaces(env run.Env, meshSocket string, s Sockets) *Spaces {
	return &Spaces{env: env, address: netpass.Socket(meshSocket), sockets: s, waiting: map[string]chan struct{}{}}
}

// run keeps the connection until ctx ends.
func (s *Spaces) run(ctx context.Context) error {
	for {
		conn, err := s.env.Net.Dial(ctx, "unix", s.address)
		if err == nil {
			err = s.talk(ctx, conn)
		}
		if ctx.Err() != nil {
			return nil
		}
		s.env.Log.Debug("meshproxy does not take network namespaces, will try again", "error", err)
		if run.Sleep(ctx, redial) != nil {
			return nil
		}
	}
}

// talk hands over all that there is, and hears which tables are in force until the connection ends.
func (s *Spaces) talk(ctx context.Context, conn net.Conn) error {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer conn.Close()
	s.use(conn)
	defer s.use(nil)
	ids, err := s.sockets.Spaces()
	if err != nil {
		return err
	}
	heard := run.Async(ctx, func(context.Context) (struct{}, error) { return struct{}{}, s.hear(conn) })
	for _, id := range ids {
		if err := s.hand(id); err != nil && !errs.Is(err, errs.NotFound) {
			return errors.Join(err, conn.Close(), (<-heard).Err)
		}
	}
	return (<-heard).Err
}

func (s *Spaces) use(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = conn
}

func (s *Spaces) hear(conn net.Conn) error {
	for {
		f, err := netpass.Receive(conn)
		if err != nil {
			return err
		}
		s.mu.Lock()
		if ready := s.waiting[f.ID]; ready != nil && f.Verb == netpass.Ready {
			close(ready)
			delete(s.waiting, f.ID)
		}
		s.mu.Unlock()
	}
}

// hand gives a container's socket to the meshproxy, if there is one now.
func (s *Spaces) hand(id string) error {
	socket, err := s.sockets.Socket(id)
	if err != nil {
		return err
	}
	defer socket.Close()
	return s.send(netpass.Frame{Verb: netpass.Have, ID: id, Socket: socket})
}

func (s *Spaces) send(f netpass.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return errs.New(errs.Unavailable, "this machine's meshproxy does not listen on %s", s.address)
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(sendLimit)) // where there is none, a full buffer ends with the connection
	return netpass.Send(s.conn, f)
}

// wire hands over one more, and waits until its tables are in force.
func (s *Spaces) wire(ctx context.Context, id string) error {
	ready := make(chan struct{})
	s.mu.Lock()
	s.waiting[id] = ready
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.waiting[id] == ready {
			delete(s.waiting, id)
		}
	}()
	if err := s.hand(id); err != nil && !errs.Is(err, errs.Unavailable) {
		return err
	}
	select { // a meshproxy that comes meanwhile is handed all
	case <-ready:
		return nil
	case <-ctx.Done():
		return errs.New(errs.Unavailable, "the meshproxy has not made the tables of container %s: %w", id, context.Cause(ctx))
	}
}
