package stream

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
)

// Directory is who is where.
type Directory interface {
	Entries(role authzv1.Role) []*cav1.DirectoryEntry
}

// dispatchers are connections to single dispatchers, made when they are needed first. One whose dispatcher has left the
// directory is closed at the next look.
type dispatchers struct {
	directory Directory
	dial      func(address string) (*grpc.ClientConn, error)
	any       grpc.ClientConnInterface // to all of them, in turn

	mu      sync.Mutex         // guards all below
	conns   map[string]dialled // by the machine's id
	stopped bool               // nobody is left to close another
}

// dialled is a connection and where it leads.
type dialled struct {
	*grpc.ClientConn
	address string
}

// at is the connection to one dispatcher, by its machine's id; empty: to any.
func (d *dispatchers) at(id string) (grpc.ClientConnInterface, error) {
	if id == "" {
		return d.any, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return nil, errs.New(errs.Unavailable, "this gateway is stopping")
	}
	known := map[string]string{}
	for _, e := range d.directory.Entries(authzv1.Role_ROLE_DISPATCHER) {
		if len(e.GetAddresses()) > 0 {
			known[e.GetMachineId()] = e.GetAddresses()[0]
		}
	}
	for other, conn := range d.conns {
		if known[other] != conn.address {
			delete(d.conns, other)
			_ = conn.Close() // its streams end; whoever it was has left, or is elsewhere now
		}
	}
	if conn, ok := d.conns[id]; ok {
		return conn.ClientConn, nil
	}
	if known[id] == "" {
		return nil, errs.New(errs.Unavailable, "the dispatcher that holds the session of the task's machine is gone; the machine looks for another one")
	}
	conn, err := d.dial(known[id])
	if err != nil {
		return nil, err
	}
	d.conns[id] = dialled{conn, known[id]}
	return conn, nil
}

// run closes the connections when ctx ends, and lets nobody dial from then on.
func (d *dispatchers) run(ctx context.Context) error {
	<-ctx.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, conn := range d.conns {
		_ = conn.Close() // nobody is left to tell
	}
	clear(d.conns)
	d.stopped = true
	return nil
}
