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
	// goneLimit is the longest wait until a meshproxy has let go of another tool's namespace: a paused one must not hold it for ever.
	goneLimit = 3 * time.Second
)

// Sockets are the containers' network namespaces.
type Sockets interface {
	Spaces() ([]string, error)
	Socket(id string) (*netpass.File, error)
	// Foreign says that one is another tool's.
	Foreign(id string) bool
}

// Spaces hands the meshproxy a socket of each container's namespace: all of them whenever it has come anew, then those that
// come. It is safe for concurrent use; run has one caller.
type Spaces struct {
	env     run.Env
	address string
	sockets Sockets

	mu      sync.Mutex                      // guards all below; held while a frame is sent, so that frames are whole
	conn    net.Conn                        // nil while there is none
	waiting map[netpass.Frame]chan struct{} // by the frame that is waited for
}

// newSpaces makes one; see netpass.
func newSpaces(env run.Env, meshSocket string, s Sockets) *Spaces {
	return &Spaces{env: env, address: netpass.Socket(meshSocket), sockets: s, waiting: map[netpass.Frame]chan struct{}{}}
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
		if said := s.waiting[f]; said != nil {
			close(said)
			delete(s.waiting, f)
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
	ready, stop := s.await(netpass.Frame{Verb: netpass.Ready, ID: id})
	defer stop()
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

// unwire has a container let go of. That of another tool is waited for: our tables are then taken out of its namespace, and a meshproxy
// in the midst of a change would make them again.
func (s *Spaces) unwire(ctx context.Context, id string) error {
	gone := netpass.Frame{Verb: netpass.Gone, ID: id}
	if !s.sockets.Foreign(id) {
		return s.send(gone)
	}
	ctx, cancel := context.WithTimeout(ctx, goneLimit)
	defer cancel()
	done, stop := s.await(gone)
	defer stop()
	for err := s.send(gone); err != nil; err = s.send(gone) { // after our own start it may still hold what our last life gave it
		if run.Sleep(ctx, redial) != nil {
			return err
		}
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errs.New(errs.Unavailable, "the meshproxy has not let go of container %s: %w", id, context.Cause(ctx))
	}
}

// await has a channel closed when the meshproxy says something. Stop ends the wait.
func (s *Spaces) await(f netpass.Frame) (said <-chan struct{}, stop func()) {
	c := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[f] = c
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.waiting[f] == c {
			delete(s.waiting, f)
		}
	}
}
