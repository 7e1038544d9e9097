package stream

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	// answerLimit is the silence after which a machine is named as missing: longer than a dispatcher waits for its agent.
	answerLimit = 8 * time.Second
	// again is the least time between two tries to ask a machine that should be there.
	again = time.Second
)

// question is what is asked of each task's machine.
type question[R any] struct {
	// read asks, and puts what is answered, to the end. Alive says that the machine has answered.
	read func(ctx context.Context, conn grpc.ClientConnInterface, p *logsv1.Place, alive func(), put func(R) error) error
	// missing is the answer in the place of a machine's.
	missing func(p *logsv1.Place, why string) R
	// follow asks again when a machine is back.
	follow bool
	// ends says that nothing is left to ask when all tasks have ended, and no other will come.
	ends bool
}

// reader asks about one task, for as long as there is something to ask.
type reader[R any] struct {
	*question[R]
	dispatchers *dispatchers
	news        chan *logsv1.Place // the latest place; closed when there will be no other
	put         func(R) error
	missed      string // said last
	last        bool   // news is closed, and that was seen
}

// tell replaces a place that was not taken yet.
func (r *reader[R]) tell(p *logsv1.Place) {
	select {
	case <-r.news:
	default:
	}
	r.news <- p
}

// run reads until the task has no more to say, or ctx ends.
func (r *reader[R]) run(ctx context.Context, p *logsv1.Place) error {
	for {
		wait := time.Duration(-1) // for the next news alone
		switch {
		case p.GetState() < typesv1.TaskState_TASK_STATE_STARTING && p.GetAway() != "" || neverStarted(p):
			// It has written nothing yet.
		case p.GetAway() != "":
			if err := r.miss(p, p.GetAway()); err != nil {
				return err
			}
		default:
			next, moved, err := r.ask(ctx, p)
			p, wait = next, again
			switch {
			case moved:
				continue
			case ctx.Err() != nil:
				return ctx.Err()
			case err == nil && state.Terminal(p.GetState()):
				return nil
			case err == nil: // it has written nothing yet, or may go on
			case errs.KindOf(err) == errs.NotFound && p.GetState() < typesv1.TaskState_TASK_STATE_STARTING:
				// Its machine has not heard of it yet.
			default:
				if err := r.miss(p, err.Error()); err != nil {
					return err
				}
				if errs.KindOf(err) != errs.Unavailable {
					return nil
				}
			}
		}
		if r.over(p) {
			return nil
		}
		next, err := r.pause(ctx, wait)
		if err != nil {
			return err
		}
		if next != nil {
			p = next
		}
	}
}

// over reports whether nothing more can come of a task, or nobody waits for it.
func (r *reader[R]) over(p *logsv1.Place) bool { return !r.follow || r.last || neverStarted(p) }

func neverStarted(p *logsv1.Place) bool {
	return p.GetState() == typesv1.TaskState_TASK_STATE_REJECTED
}

// miss names what is missing, once.
func (r *reader[R]) miss(p *logsv1.Place, why string) error {
	if r.missed == why {
		return nil
	}
	r.missed = why
	return r.put(r.missing(p, why))
}

// pause waits for another place, or at most for d if that is not negative.
func (r *reader[R]) pause(ctx context.Context, d time.Duration) (*logsv1.Place, error) {
	var over <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case p, more := <-r.news:
		r.last = !more
		return p, nil
	case <-over:
		return nil, nil //nolint:nilnil // the same place, once more
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ask reads once. It returns the latest place, and whether the task is elsewhere, or away, before the answer has ended.
func (r *reader[R]) ask(ctx context.Context, p *logsv1.Place) (latest *logsv1.Place, moved bool, err error) {
	conn, err := r.dispatchers.at(p.GetDispatcherId())
	if err != nil {
		return p, false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := errs.New(errs.Unavailable, "it has not answered within %s", answerLimit)
	patience := time.AfterFunc(answerLimit, func() { cancel(silent) })
	defer patience.Stop()
	alive := func() {
		patience.Stop()
		r.missed = ""
	}
	done := run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		err := r.read(ctx, conn, p, alive, r.put)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return struct{}{}, err
	})
	latest = p
	news := r.news
	if r.last {
		news = nil
	}
	for {
		select {
		case answer := <-done:
			err := answer.Err
			if context.Cause(ctx) == silent { //nolint:errorlint // this very one
				err = silent
			}
			if err != nil && latest.GetDispatcherId() != p.GetDispatcherId() {
				return latest, true, nil
			}
			return latest, false, err
		case next, more := <-news:
			if !more { // history has let go of it: what comes still is all
				r.last, news = true, nil
				continue
			}
			if latest = next; latest.GetAway() == "" {
				continue // also when another dispatcher has the session now: the stream goes on where it is
			}
			cancel(nil)
			<-done
			return latest, true, nil
		}
	}
}

// places asks some dispatcher where tasks are, and calls each for every answer until ctx ends or each returns an error.
// When that dispatcher goes, another one is asked: it says again where all are.
func (s *Server) places(ctx context.Context, req *logsv1.PlacesRequest, each func(*logsv1.PlacesResponse) error) error {
	for first := true; ; first = false {
		heard, err := s.placesOnce(ctx, req, each)
		if ctx.Err() != nil || errs.KindOf(err) != errs.Unavailable || first && !heard {
			return err
		}
		if err := run.Sleep(ctx, s.env.Rand.Jitter(again, 0.5)); err != nil {
			return err
		}
	}
}

func (s *Server) placesOnce(ctx context.Context, req *logsv1.PlacesRequest, each func(*logsv1.PlacesResponse) error) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	patience := time.AfterFunc(answerLimit, cancel)
	defer patience.Stop()
	stream, err := logsv1.NewPlaceServiceClient(s.dispatchers.any).Places(ctx, req)
	if err != nil {
		return false, err
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return heard, err
		}
		heard = true
		patience.Stop()
		if err := each(r); err != nil {
			return heard, err
		}
	}
}
