// Package session is the agent's line to the cluster: one stream to one dispatcher at a time.
//
// It owns the choice of the dispatcher, the stream, its heartbeats and its end. It hands assignments to the reconcile loop
// and statuses to the cluster. It must never decide what runs: without a session the machine goes on as it was last told.
// A Client is used by one Run.
package session

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/report"
)

const (
	// Defaults for what a dispatcher tells in its welcome.
	defaultPeriod  = 500 * time.Millisecond
	defaultTimeout = 2 * time.Second
	heartbeatJit   = 0.1
	// lateTurn is how late with its own heartbeat a machine must be to count as one that had no turn. With the longest period that
	// is asked for, two thirds of the time after which it would leave, it is noticed before that.
	lateTurn = 500 * time.Millisecond
	// A dispatcher that can't be had is left for another: soon at first, then less often.
	waitFirst, waitLast = 50 * time.Millisecond, time.Second
	waitJit             = 0.2
	// A welcome may take long after a power cut, when the session of the old boot must have been silent first. A paused
	// dispatcher gives none at all. So the patience grows from one try to the next.
	patienceFirst, patienceLast = 2 * time.Second, 10 * time.Second
	// batchGap is the least time between two batches of statuses; with it fifty starts share a few commits.
	batchGap = 20 * time.Millisecond
	// batchLimit is the protocol's.
	batchLimit = 1000
	// resend is when a batch without an acknowledgement is said again on the same stream.
	resend = 2 * time.Second
)

// Machine is the reconcile loop.
type Machine interface {
	// Adopted is closed when the machine knows what runs on it.
	Adopted() <-chan struct{}
	// Generation is that of the last assignment taken.
	Generation() *typesv1.Version
	// Assign takes an assignment, or says why not.
	Assign(ctx context.Context, a *dispatcherv1.Assignment) error
	// Payload hears the data of a secret or config.
	Payload(ctx context.Context, p *dispatcherv1.Payload)
	// Barrier hears how far the mesh is.
	Barrier(ctx context.Context, applied *typesv1.Version)
	// Line hears whether a session is open.
	Line(ctx context.Context, up bool)
	// Acked hears what the cluster has.
	Acked(ctx context.Context, batch []*dispatcherv1.TaskStatus)
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

// Part is the part of the process's health that says whether the session is open.
const Part = "dispatcher"

// Client keeps a session open.
type Client struct {
	Env run.Env
	// Dispatchers are the dispatchers now.
	Dispatchers func() []*cav1.DirectoryEntry
	// Dial connects to one address of one.
	Dial      func(address string) (*grpc.ClientConn, error)
	Directory Directory
	// Trust takes whom to trust and whom to refuse.
	Trust   func(bundle []byte, denied []string)
	Machine Machine
	Outbox  *report.Outbox
	Health  Health
	// Streams opens a data stream to the dispatcher at an address, or says why not.
	Streams func(address string, m *dispatcherv1.OpenStream) error
	// Describe says what the machine is, for the hello.
	Describe func(ctx context.Context) *typesv1.NodeDescription
	// Redescribe is sent to when what the machine is has changed; nil: never.
	Redescribe <-chan struct{}
	// Usage has what containers use, when it was measured; nil: never.
	Usage <-chan *dispatcherv1.UsageReport
	// Hello is said first; description and generation are filled in.
	Hello *dispatcherv1.Hello

	patience time.Duration // for the next welcome
}

// Run keeps a session with some dispatcher until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	c.Health.Set(Part, false, "waits until the machine knows what runs on it")
	select {
	case <-c.Machine.Adopted():
	case <-ctx.Done():
		return nil
	}
	wait, last, next := waitFirst, "", ""
	c.patience = patienceFirst
	for {
		changed := c.Directory.Changed()
		member, ok := pick(c.Env.Rand, c.Dispatchers(), last, next)
		if !ok {
			c.Health.Set(Part, false, "no dispatcher is known; containers run on as they are")
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		last = member.GetMachineId()
		welcomed, err := c.visit(ctx, member)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is how it ends
		}
		c.Health.Set(Part, false, "the session with dispatcher "+last+" ended: "+words(err)+"; containers run on as they are")
		if welcomed {
			c.Env.Log.Info("session ended", "dispatcher", last, "reason", words(err))
		}
		if next = directory.MovedTo(err); next != "" && welcomed {
			continue // handed over; who is sent on without a welcome waits, or could be sent in circles fast
		}
		if welcomed {
			wait = waitFirst
		}
		if run.Sleep(ctx, c.Env.Rand.Jitter(wait, waitJit)) != nil {
			return nil //nolint:nilerr // as above
		}
		wait = min(2*wait, waitLast)
	}
}

func words(err error) string {
	if err == nil {
		return "closed by the dispatcher"
	}
	return err.Error()
}

// pick chooses the next one if it is known, else by weight, and not the last one if there is another.
func pick(r *run.Rand, members []*cav1.DirectoryEntry, last, next string) (*cav1.DirectoryEntry, bool) {
	var pool []*cav1.DirectoryEntry
	total := 0
	for _, m := range members {
		if next != "" && m.GetMachineId() == next && len(m.GetAddresses()) > 0 {
			return m, true
		}
		if len(m.GetAddresses()) > 0 && (m.GetMachineId() != last || len(members) == 1) {
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

// visit tries a member's addresses until one has welcomed us.
func (c *Client) visit(ctx context.Context, m *cav1.DirectoryEntry) (welcomed bool, err error) {
	for _, a := range m.GetAddresses() {
		welcomed, err = c.hold(ctx, a)
		if welcomed || ctx.Err() != nil {
			return welcomed, err
		}
	}
	return false, err
}

// hold is one session, from hello to its end.
func (c *Client) hold(ctx context.Context, address string) (welcomed bool, err error) {
	hello := proto.CloneOf(c.Hello)
	hello.Description, hello.Generation = c.Describe(ctx), c.Machine.Generation()
	conn, err := c.Dial(address)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Opening the stream waits for the connection, and a dispatcher that is paused may accept one and say nothing.
	connect := time.AfterFunc(c.patience, cancel)
	defer connect.Stop()
	stream, err := dispatcherv1.NewSessionServiceClient(conn).Session(ctx)
	if err != nil {
		return false, err
	}
	if err := stream.Send(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Hello{Hello: hello}}); err != nil {
		return false, lastWords(stream, err)
	}
	if !connect.Stop() {
		return false, errs.New(errs.Unavailable, "no connection to %s within %s", address, c.patience)
	}
	t := newTalk(c, stream, address)
	defer t.stop()
	heard := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, t.listen(ctx) })
	err = t.speak(ctx, heard)
	if t.welcomed {
		c.Machine.Line(outer, false)
	}
	if !t.welcomed {
		c.patience = min(2*c.patience, patienceLast)
	} else {
		c.patience = patienceFirst
	}
	return t.welcomed, err
}

// lastWords is why a stream can't be written to: grpc tells it to the reader only.
func lastWords(stream grpc.BidiStreamingClient[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse], err error) error {
	if _, why := stream.Recv(); why != nil {
		return why
	}
	return err
}
