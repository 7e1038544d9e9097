// Package carry opens the data streams that dispatchers ask this machine for, and answers the calls that they carry.
//
// It owns the connections for it, which are not the session's: what a person reads must not hold up a heartbeat. A call is
// answered by the same handlers that a gRPC server would have (package inside); this package only gives them their stream.
// It must never dial anybody but the dispatcher that asked on its session. A Carrier is safe for concurrent use.
package carry

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

const (
	// maxStreams bounds the streams of this machine that are open at once.
	maxStreams = 256
	// joinLimit is how long connecting and joining may take: the dispatcher waits no longer.
	joinLimit = 5 * time.Second
)

// Service is one service that is answered, as generated code describes it, with who answers.
type Service struct {
	Desc    grpc.ServiceDesc
	Handler any
}

// order is a stream that is asked for.
type order struct {
	address string
	open    *dispatcherv1.OpenStream
}

// Carrier opens streams.
type Carrier struct {
	env     run.Env
	dial    func(address string) (*grpc.ClientConn, error)
	methods map[string]method
	orders  chan order
	tasks   *run.Spawner

	mu    sync.Mutex // guards below
	count int        // streams that are open or ordered
	conns map[string]*conn
}

type method struct {
	handle  grpc.StreamHandler
	handler any
}

// conn is a connection that streams of one dispatcher share.
type conn struct {
	*grpc.ClientConn
	streams int
}

// New makes one.
func New(env run.Env, dial func(address string) (*grpc.ClientConn, error), services ...Service) *Carrier {
	c := &Carrier{
		env: env, dial: dial, methods: map[string]method{}, orders: make(chan order, maxStreams), tasks: run.NewSpawner(env.Log),
		conns: map[string]*conn{},
	}
	for _, s := range services {
		for _, m := range s.Desc.Streams {
			c.methods["/"+s.Desc.ServiceName+"/"+m.StreamName] = method{handle: m.Handler, handler: s.Handler}
		}
	}
	return c
}

// Open orders a stream to the dispatcher at an address, which has asked for it. An error is why it is not opened.
func (c *Carrier) Open(address string, m *dispatcherv1.OpenStream) error {
	if _, ok := c.methods[m.GetMethod()]; !ok {
		return errs.New(errs.Invalid, "this agent does not answer %.100s", m.GetMethod())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count >= maxStreams {
		return errs.New(errs.Exhausted, "%d streams are open already", maxStreams)
	}
	c.count++
	c.orders <- order{address, m} // has room: there are never more orders than counted streams
	return nil
}

// Run opens what is ordered, until ctx ends; then all streams end.
func (c *Carrier) Run(ctx context.Context) error {
	g := run.NewGroup(c.env.Log)
	g.Go("streams", c.tasks.Run)
	g.Go("orders", func(ctx context.Context) error {
		for {
			select {
			case o := <-c.orders:
				c.tasks.Go(ctx, "stream", func(ctx context.Context) error {
					defer c.done()
					return c.carry(ctx, o)
				})
			case <-ctx.Done():
				return nil
			}
		}
	})
	return g.Wait(ctx)
}

func (c *Carrier) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count--
}

// take is a connection to a dispatcher, shared with the other streams to it. The last one closes it.
func (c *Carrier) take(address string) (*conn, func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.conns[address]
	if one == nil {
		raw, err := c.dial(address)
		if err != nil {
			return nil, nil, err
		}
		one = &conn{ClientConn: raw}
		c.conns[address] = one
	}
	one.streams++
	return one, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if one.streams--; one.streams == 0 {
			delete(c.conns, address)
			_ = one.Close() // nothing is under way on it
		}
	}, nil
}

// carry is one stream, from joining to its end.
func (c *Carrier) carry(ctx context.Context, o order) error {
	conn, release, err := c.take(o.address)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	patience := time.AfterFunc(joinLimit, cancel)
	stream, err := dispatcherv1.NewStreamServiceClient(conn).Carry(ctx)
	if err != nil {
		return fmt.Errorf("open a data stream: %w", err)
	}
	err = stream.Send(&dispatcherv1.CarryRequest{Message: &dispatcherv1.CarryRequest_Join{Join: o.open.GetStreamId()}})
	if err != nil || !patience.Stop() {
		return fmt.Errorf("join a data stream: %w", err)
	}
	call := newCall(ctx, stream)
	heard := run.Async(ctx, func(context.Context) (struct{}, error) {
		err := call.listen()
		cancel() // the caller is gone, or the dispatcher
		return struct{}{}, err
	})
	err = c.answer(call, c.methods[o.open.GetMethod()])
	if ctx.Err() == nil {
		call.finish(err)
		// The dispatcher ends the stream when it has passed on all.
		end := time.AfterFunc(joinLimit, cancel)
		<-heard
		end.Stop()
	}
	return nil //nolint:nilerr // how the call went has been told to the caller, or there is none any more
}

// answer calls the handler. A fault of ours ends the call alone.
func (c *Carrier) answer(call *call, m method) (err error) {
	defer func() {
		if v := recover(); v != nil {
			c.env.Log.Error("handler panicked", "panic", v, "stack", string(debug.Stack()))
			err = errs.New(errs.Internal, "the call failed by a fault of the agent; its log has more")
		}
	}()
	return m.handle(m.handler, call)
}
