// Package session is the meshproxy's line to the cluster: one stream of tables from one dispatcher at a time.
//
// It owns the choice of the dispatcher, the stream and its end. It hands on what it hears, and answers with what is in
// force. While there is no dispatcher the machine goes on with the last tables. A Client is used by one Run.
package session

import (
	"context"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/silence"
)

const (
	firstWait = 50 * time.Millisecond
	mostWait  = time.Second
	// lookEvery and lookLimit find a dispatcher that is connected and does nothing: the tables have no heartbeat, since
	// nothing may change for hours.
	lookEvery = time.Second
	lookLimit = 2 * time.Second
	// steady is how long a stream must have lived for its end to be no reason to wait longer.
	steady = 5 * time.Second
)

// Tables are what the stream fills.
type Tables interface {
	Take(*dispatcherv1.EndpointsResponse) error
	Applied() (*typesv1.Version, <-chan struct{})
}

// Directory is who is where.
type Directory interface {
	Set(*cav1.Directory) error
	Changed() <-chan struct{}
}

// Health is told what waits, and why.
type Health interface {
	Set(part string, ok bool, why string)
}

// Client keeps a stream open.
type Client struct {
	Env run.Env
	// Dispatchers are the dispatchers now.
	Dispatchers func() []*cav1.DirectoryEntry
	// Dial connects to one address of one.
	Dial      func(address string) (*grpc.ClientConn, error)
	Tables    Tables
	Directory Directory
	// Trust takes whom to trust and whom to refuse.
	Trust func(bundle []byte, denied []string)
	// News takes what the tables are worth, whenever it may have changed.
	News   func(silence.News)
	Health Health
}

// Run keeps a stream to some dispatcher, until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	wait, last, next := firstWait, "", ""
	for {
		changed := c.Directory.Changed()
		member, ok := Pick(c.Env.Rand, c.Dispatchers(), last, next)
		if !ok {
			c.News(silence.Away)
			c.Health.Set("dispatcher", false, "no dispatcher is known; the machine goes on with the last tables")
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		last = member.GetMachineId()
		started := time.Now()
		err := c.visit(ctx, member)
		if ctx.Err() != nil {
			return nil
		}
		c.News(silence.Away)
		c.Health.Set("dispatcher", false, "the line to dispatcher "+last+" ended: "+err.Error()+"; the machine goes on with the last tables")
		if next = directory.MovedTo(err); next != "" && time.Since(started) > firstWait {
			continue // handed over; who is sent on without a table waits, or could be sent in circles fast
		}
		if time.Since(started) > steady {
			wait = firstWait
		}
		if run.Sleep(ctx, c.Env.Rand.Jitter(wait, 0.2)) != nil {
			return nil
		}
		wait = min(2*wait, mostWait)
	}
}

// Pick chooses the next one if it is known, else by weight, and not the last one if there is another.
func Pick(r *run.Rand, members []*cav1.DirectoryEntry, last, next string) (*cav1.DirectoryEntry, bool) {
	var pool []*cav1.DirectoryEntry
	total := 0
	for _, m := range members {
		if next != "" && m.GetMachineId() == next {
			return m, true
		}
		if m.GetMachineId() != last || len(members) == 1 {
			pool = append(pool, m)
			total += weight(m)
		}
	}
	n := r.IntN(total)
	for _, m := range pool {
		if n -= weight(m); n < 0 {
			return m, true
		}
	}
	return nil, false
}

func weight(m *cav1.DirectoryEntry) int { return max(1, int(m.GetWeight())) }

// visit tries a member's addresses until one has streamed something. It always returns an error.
func (c *Client) visit(ctx context.Context, m *cav1.DirectoryEntry) error {
	err := errs.New(errs.Unavailable, "it has no address")
	for _, a := range m.GetAddresses() {
		var heard bool
		if heard, err = c.stream(ctx, a); heard || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// stream takes tables from one address until it ends.
func (c *Client) stream(ctx context.Context, address string) (heard bool, err error) {
	conn, err := c.Dial(address)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s, err := dispatcherv1.NewEndpointServiceClient(conn).Endpoints(ctx)
	if err != nil {
		return false, err
	}
	if err := s.Send(&dispatcherv1.EndpointsRequest{}); err != nil {
		return false, err
	}
	applied := make(chan struct{}, 1)
	side := run.NewSpawner(c.Env.Log)
	side.Go(ctx, "answers", func(ctx context.Context) error { cancel(c.answer(ctx, s, applied)); return nil })
	side.Go(ctx, "look", func(ctx context.Context) error { cancel(c.look(ctx, conn)); return nil })
	heard, err = c.listen(s, address, applied)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(nil)
	return heard, errorOf(err, side.Wait(context.WithoutCancel(ctx)))
}

func errorOf(err, wait error) error {
	if wait != nil {
		return wait
	}
	return err
}

// listen hands on what comes. Trust and directory first: the tables may name members that only they know.
func (c *Client) listen(s grpc.BidiStreamingClient[dispatcherv1.EndpointsRequest, dispatcherv1.EndpointsResponse],
	address string, applied chan<- struct{},
) (heard bool, err error) {
	for {
		r, err := s.Recv()
		if err != nil {
			return heard, err
		}
		if t := r.GetTrust(); t != nil {
			c.Trust(t.GetBundle(), t.GetDenied())
		}
		if d := r.GetDirectory(); d != nil {
			if err := c.Directory.Set(d); err != nil {
				c.Env.Log.Warn("directory not kept", "error", err)
			}
		}
		if err := c.Tables.Take(r); err != nil {
			return heard, err
		}
		c.News(worth(r))
		if !heard {
			c.Env.Log.Info("tables come", "dispatcher", address)
			c.Health.Set("dispatcher", true, "")
			heard = true
			applied <- struct{}{} // from now on there is something to answer
		}
	}
}

func worth(r *dispatcherv1.EndpointsResponse) silence.News {
	if r.GetStale() {
		return silence.Stale
	}
	return silence.Fresh
}

// answer says what is in force, each version once, and not before the first tables of this stream: what was in force before
// says nothing about them.
func (c *Client) answer(ctx context.Context, s grpc.BidiStreamingClient[dispatcherv1.EndpointsRequest, dispatcherv1.EndpointsResponse],
	first <-chan struct{},
) error {
	select {
	case <-first:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		version, changed := c.Tables.Applied()
		if version != nil {
			if err := s.Send(&dispatcherv1.EndpointsRequest{Applied: version}); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look asks now and then whether the dispatcher is there at all. What it says of its health is no matter: it may be waiting
// for the store, and its tables are still the best.
func (c *Client) look(ctx context.Context, conn *grpc.ClientConn) error {
	health := healthpb.NewHealthClient(conn)
	for {
		if err := run.Sleep(ctx, c.Env.Rand.Jitter(lookEvery, 0.2)); err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, lookLimit)
		_, err := health.Check(limited, &healthpb.HealthCheckRequest{})
		cancel()
		if err != nil && errs.KindOf(err) == errs.Unavailable {
			return errs.New(errs.Unavailable, "it does not answer: %w", err)
		}
	}
}
