package session

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// talk is one session. Its listener hands what it hears to the speaker, who alone touches the fields.
type talk struct {
	*Client
	stream  grpc.BidiStreamingClient[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]
	address string
	heard   chan *dispatcherv1.SessionResponse

	welcomed bool
	timeout  time.Duration
	ticker   run.Ticker
	beat     uint64        // of the last heartbeat
	silence  *time.Timer   // ends when nothing was acknowledged for too long
	each     time.Duration // the period of heartbeats
	longest  time.Duration // from one to the next, whatever its turn is
	beaten   time.Time     // when the last was sent
	period   time.Duration // until the next
	ticked   time.Time     // when this machine had its last turn

	batch   []*dispatcherv1.TaskStatus // on its way
	seq     uint64                     // of the batch
	repeat  *time.Timer                // says it again
	resting bool                       // between two batches
	rest    *time.Timer
}

func newTalk(c *Client, stream grpc.BidiStreamingClient[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse], address string) *talk {
	t := &talk{
		Client: c, stream: stream, address: address, heard: make(chan *dispatcherv1.SessionResponse), timeout: c.patience,
		each: defaultPeriod, period: defaultPeriod, ticked: time.Now(), ticker: c.Env.Ticker(defaultPeriod), silence: time.NewTimer(c.patience), repeat: time.NewTimer(resend), rest: time.NewTimer(batchGap),
	}
	t.repeat.Stop()
	t.rest.Stop()
	return t
}

func (t *talk) stop() {
	t.ticker.Stop()
	t.silence.Stop()
	t.repeat.Stop()
	t.rest.Stop()
}

// listen reads the stream to its end.
func (t *talk) listen(ctx context.Context) error {
	for {
		r, err := t.stream.Recv()
		if err != nil {
			return err
		}
		select {
		case t.heard <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// speak sends all that goes to the dispatcher, until the session ends. It always returns why.
func (t *talk) speak(ctx context.Context, ended <-chan run.Result[struct{}]) error {
	for {
		news := t.Outbox.Changed() // before the look, or one that comes in between is missed
		if err := t.report(); err != nil {
			return err
		}
		var measured <-chan *dispatcherv1.UsageReport
		var described <-chan struct{}
		if t.welcomed {
			measured, described = t.Usage, t.Redescribe
		}
		select {
		case r := <-t.heard:
			if err := t.hear(ctx, r); err != nil {
				return err
			}
		case <-news:
		case <-t.ticker.C():
			if err := t.tick(); err != nil {
				return err
			}
		case r := <-measured:
			if err := t.send(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Usage{Usage: r}}); err != nil {
				return err
			}
		case <-described:
			if err := t.send(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Description{Description: t.Describe(ctx)}}); err != nil {
				return err
			}
		case <-t.rest.C:
			t.resting = false
		case <-t.repeat.C:
			t.batch = nil // said again by report, with what is new
		case <-t.silence.C:
			if err := t.overdue(ctx); err != nil {
				return err
			}
		case r := <-ended:
			if errors.Is(r.Err, io.EOF) {
				return nil
			}
			return r.Err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tick sends the heartbeat that is due.
func (t *talk) tick() error {
	if t.wasAway() {
		t.silence.Reset(t.timeout)
	}
	t.ticked = time.Now()
	if t.period != t.each { // its turn came; it is told the next, or beats by its period
		t.beatAfter(t.each)
	}
	return t.heartbeat()
}

// wasAway says that this process had no turn for so long that it was paused, or starved by others on its machine. What the
// dispatcher said meanwhile waits unheard, and what it answers was asked late: a silence that was counted then is nobody's.
func (t *talk) wasAway() bool { return time.Since(t.ticked) > t.period+lateTurn }

// overdue judges a dispatcher of which nothing was heard in time. An answer that waits is taken first.
func (t *talk) overdue(ctx context.Context) error {
	select {
	case r := <-t.heard:
		t.silence.Reset(t.timeout)
		return t.hear(ctx, r)
	default:
	}
	if t.wasAway() {
		t.silence.Reset(t.timeout)
		return nil
	}
	return errs.New(errs.Unavailable, "dispatcher at %s has been silent for %s", t.address, t.timeout)
}

func (t *talk) hear(ctx context.Context, r *dispatcherv1.SessionResponse) error {
	switch m := r.GetMessage().(type) {
	case *dispatcherv1.SessionResponse_Welcome:
		t.Machine.Line(ctx, true)
		return t.welcome(m.Welcome)
	case *dispatcherv1.SessionResponse_HeartbeatAck:
		t.timeout = orDefault(m.HeartbeatAck.GetHeartbeatTimeout().AsDuration(), t.timeout)
		t.silence.Reset(t.timeout)
		if p := m.HeartbeatAck.GetHeartbeatPeriod().AsDuration(); p > 0 {
			// The answer may be late: with a whole period more until the next heartbeat this machine might count as silent.
			t.beatEach(p)
			return t.heartbeat()
		}
		if next := m.HeartbeatAck.GetNextHeartbeat().AsDuration(); next > 0 {
			// So may this one, and what it was late by would be silence of this machine.
			left := t.longest - time.Since(t.beaten)
			t.beatAfter(max(min(next, left), time.Millisecond))
		}
	case *dispatcherv1.SessionResponse_StatusAck:
		if t.batch != nil && m.StatusAck.GetSeq() >= t.seq {
			t.Outbox.Ack(t.batch)
			t.Machine.Acked(ctx, t.batch)
			t.batch = nil
			t.repeat.Stop()
		}
	case *dispatcherv1.SessionResponse_Assignment:
		if err := t.Machine.Assign(ctx, m.Assignment); err != nil {
			return err
		}
	case *dispatcherv1.SessionResponse_Payload:
		t.Machine.Payload(ctx, m.Payload)
	case *dispatcherv1.SessionResponse_Barrier:
		t.Machine.Barrier(ctx, m.Barrier.GetApplied())
	case *dispatcherv1.SessionResponse_Directory:
		if err := t.Directory.Set(m.Directory); err != nil {
			t.Env.Log.Warn("the directory is not kept on disk", "error", err)
		}
	case *dispatcherv1.SessionResponse_OpenStream:
		if err := t.Streams(t.address, m.OpenStream); err != nil {
			return t.send(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Refusal{
				Refusal: &dispatcherv1.StreamRefusal{StreamId: m.OpenStream.GetStreamId(), Reason: err.Error()},
			}})
		}
	case *dispatcherv1.SessionResponse_Trust:
		t.Trust(m.Trust.GetBundle(), m.Trust.GetDenied())
	}
	return nil
}

func (t *talk) welcome(w *dispatcherv1.Welcome) error {
	t.welcomed = true
	t.timeout = orDefault(w.GetHeartbeatTimeout().AsDuration(), defaultTimeout)
	t.silence.Reset(t.timeout)
	t.beatEach(orDefault(w.GetHeartbeatPeriod().AsDuration(), defaultPeriod))
	t.Env.Log.Info("session opened", "dispatcher", t.address, "session", w.GetSession())
	t.Health.Set(Part, true, "")
	return t.heartbeat()
}

// beatEach sets the period of heartbeats. Each session has its own beat, or all machines of a cluster would beat together
// after a restart.
func (t *talk) beatEach(period time.Duration) {
	t.each, t.longest = t.Env.Rand.Jitter(period, heartbeatJit), period+time.Duration(heartbeatJit*float64(period))
	t.beatAfter(t.each)
}

// beatAfter has the next heartbeat come after a time.
func (t *talk) beatAfter(next time.Duration) {
	t.ticker.Stop()
	t.period = next
	t.ticker, t.ticked = t.Env.Ticker(next), time.Now()
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

func (t *talk) heartbeat() error {
	if !t.welcomed {
		return nil
	}
	t.beat++
	t.beaten = time.Now()
	return t.send(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Heartbeat{
		Heartbeat: &dispatcherv1.Heartbeat{Seq: t.beat},
	}})
}

// report says what is new, one batch at a time: what changes meanwhile shares the next.
func (t *talk) report() error {
	if !t.welcomed || t.batch != nil || t.resting {
		return nil
	}
	batch := t.Outbox.Pending(batchLimit)
	if len(batch) == 0 {
		return nil
	}
	t.batch = batch
	t.seq++
	t.resting = true
	t.rest.Reset(batchGap)
	t.repeat.Reset(resend)
	return t.send(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Status{
		Status: &dispatcherv1.StatusBatch{Seq: t.seq, Tasks: batch},
	}})
}

func (t *talk) send(m *dispatcherv1.SessionRequest) error {
	if err := t.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil // after io.EOF the listener tells why
}
