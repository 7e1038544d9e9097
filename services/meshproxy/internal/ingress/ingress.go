// Package ingress is the session of a machine that only takes traffic: it has no agent to open one.
//
// It owns that session: hello, heartbeats, and going elsewhere when they are not acknowledged. Such a machine has no tasks,
// so nothing else is said in it but how many connections it led to services that scale by them. A Session is used by one Run.
package ingress

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/tally"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/session"
)

const (
	defaultPeriod  = 500 * time.Millisecond
	defaultTimeout = 2 * time.Second
	firstWait      = 50 * time.Millisecond
	mostWait       = time.Second
	// countEvery is the time between two reports of connections, as an agent's.
	countEvery = 10 * time.Second
)

// Session keeps the machine's session open.
type Session struct {
	Env         run.Env
	Dispatchers func() []*cav1.DirectoryEntry
	Dial        func(address string) (*grpc.ClientConn, error)
	// Hello is said first, with the kind set.
	Hello *dispatcherv1.Hello
	// Plane is what the machine can, which goes into the description, and is said again with a heartbeat when it is another; nil: nothing.
	Plane func() *meshv1.DataplaneResponse
	// Count tells what this machine's mesh has led; nil: nothing is counted.
	Count func() (*meshv1.ConnectionsResponse, error)

	tally tally.Tally
}

// Run keeps the session, with one dispatcher after another, until ctx ends.
func (s *Session) Run(ctx context.Context) error {
	wait, last, next := firstWait, "", ""
	for {
		if member, ok := session.Pick(s.Env.Rand, s.Dispatchers(), last, next); ok {
			last, next = member.GetMachineId(), ""
			started := time.Now()
			for _, a := range member.GetAddresses() {
				err := s.hold(ctx, a)
				if ctx.Err() != nil {
					return nil
				}
				s.Env.Log.Warn("session ended, will open another", "dispatcher", a, "error", err)
				if next = directory.MovedTo(err); next != "" {
					break
				}
			}
			if next != "" && next != last && time.Since(started) > firstWait {
				continue // handed over
			}
			if time.Since(started) > defaultTimeout*2 {
				wait = firstWait
			}
		}
		if run.Sleep(ctx, s.Env.Rand.Jitter(wait, 0.2)) != nil {
			return nil
		}
		wait = min(2*wait, mostWait)
	}
}

// hold is one session. It always returns an error.
func (s *Session) hold(ctx context.Context, address string) error {
	conn, err := s.Dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := dispatcherv1.NewSessionServiceClient(conn).Session(ctx)
	if err != nil {
		return err
	}
	s.Hello.Kind = dispatcherv1.SessionKind_SESSION_KIND_INGRESS
	s.describe()
	if err := stream.Send(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Hello{Hello: s.Hello}}); err != nil {
		return err
	}
	heard := make(chan *dispatcherv1.SessionResponse)
	listening := run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		for {
			r, err := stream.Recv()
			if err != nil {
				return struct{}{}, err
			}
			select {
			case heard <- r:
			case <-ctx.Done():
				return struct{}{}, ctx.Err()
			}
		}
	})
	err = s.beat(ctx, stream, heard, listening)
	cancel()
	return err
}

// describe puts what the machine can now into the description, and says whether that is news.
func (s *Session) describe() (news bool) {
	if s.Plane == nil {
		return false
	}
	plane := s.Plane()
	d := proto.CloneOf(s.Hello.GetDescription())
	d.Dataplane, d.DataplaneReason = plane.GetDataplane(), plane.GetReason()
	d.Tunnel, d.TunnelReason, d.TunnelKeys = plane.GetTunnel(), plane.GetTunnelReason(), plane.GetTunnelKeys()
	news = !proto.Equal(d, s.Hello.GetDescription())
	s.Hello.Description = d
	return news
}

// redescribe says it where it is.
func (s *Session) redescribe(stream grpc.BidiStreamingClient[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]) error {
	if !s.describe() {
		return nil
	}
	return stream.Send(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Description{Description: s.Hello.GetDescription()}})
}

// beat sends heartbeats at the period that the dispatcher tells, and gives up when they are not acknowledged.
func (s *Session) beat(ctx context.Context, stream grpc.BidiStreamingClient[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse],
	heard <-chan *dispatcherv1.SessionResponse, ended <-chan run.Result[struct{}],
) error {
	timeout := defaultTimeout
	ticker := s.Env.Ticker(defaultPeriod)
	defer func() { ticker.Stop() }()
	pace := func(period time.Duration) {
		ticker.Stop()
		ticker = s.Env.Ticker(s.Env.Rand.Jitter(period, 0.1))
	}
	counts := s.Env.Ticker(s.Env.Rand.Jitter(countEvery, 0.2))
	defer counts.Stop()
	silence := time.NewTimer(timeout)
	defer silence.Stop()
	welcome, seq := false, uint64(0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-ended:
			return r.Err
		case r := <-heard:
			if w := r.GetWelcome(); w != nil {
				welcome = true
				timeout = orDefault(w.GetHeartbeatTimeout().AsDuration(), defaultTimeout)
				pace(orDefault(w.GetHeartbeatPeriod().AsDuration(), defaultPeriod))
				s.Env.Log.Info("session open", "number", w.GetSession())
			}
			// A dispatcher of many machines asks for fewer heartbeats, and for more patience. Its answer may be late: with a whole period more until the
			// next this machine might count as silent.
			timeout = orDefault(r.GetHeartbeatAck().GetHeartbeatTimeout().AsDuration(), timeout)
			silence.Reset(timeout)
			if p := r.GetHeartbeatAck().GetHeartbeatPeriod().AsDuration(); p > 0 {
				pace(p)
				seq++
				if err := heartbeat(stream, seq); err != nil {
					return err
				}
			}
		case <-counts.C():
			if !welcome || s.Count == nil {
				continue
			}
			usage := &dispatcherv1.SessionRequest_Usage{Usage: s.usage()}
			if err := stream.Send(&dispatcherv1.SessionRequest{Message: usage}); err != nil {
				return err
			}
		case <-silence.C:
			return errs.New(errs.Unavailable, "the dispatcher has been silent for %s", timeout)
		case <-ticker.C():
			if !welcome {
				continue // another boot's session may have to end first
			}
			seq++
			if err := errors.Join(heartbeat(stream, seq), s.redescribe(stream)); err != nil {
				return err
			}
		}
	}
}

func heartbeat(stream grpc.BidiStreamingClient[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse], seq uint64) error {
	beat := &dispatcherv1.SessionRequest_Heartbeat{Heartbeat: &dispatcherv1.Heartbeat{Seq: seq}}
	return stream.Send(&dispatcherv1.SessionRequest{Message: beat})
}

// usage is the report of this machine.
func (s *Session) usage() *dispatcherv1.UsageReport {
	counts, err := s.Count()
	if err != nil {
		s.Env.Log.Warn("connections not counted, will retry", "error", err)
	}
	out := &dispatcherv1.UsageReport{}
	s.tally.Next(s.Env.Now(), counts, out)
	return out
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}
