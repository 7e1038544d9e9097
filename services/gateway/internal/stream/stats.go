package stream

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// minPeriod is the least time between two readings.
const minPeriod = 100 * time.Millisecond

// stats implements logs.v1.StatsService.
type stats struct {
	logsv1.UnimplementedStatsServiceServer
	*Server
}

// Stats streams what tasks use.
func (s stats) Stats(req *logsv1.StatsRequest, stream grpc.ServerStreamingServer[logsv1.StatsResponse]) error {
	if req.GetPeriod() != nil && req.GetPeriod().AsDuration() < minPeriod {
		return errs.Faults("read stats", errs.Fault{Field: "period", Reason: "must be at least " + minPeriod.String()})
	}
	ctx, err := s.as(stream.Context())
	if err != nil {
		return err
	}
	where := &logsv1.PlacesRequest{Targets: req.GetTargets(), Running: true}
	q := &question[*logsv1.StatsResponse]{
		follow: req.GetReadings() == 0,
		missing: func(p *logsv1.Place, why string) *logsv1.StatsResponse {
			return &logsv1.StatsResponse{Task: p, Missing: why}
		},
		read: func(ctx context.Context, conn grpc.ClientConnInterface, p *logsv1.Place, alive func(), put func(*logsv1.StatsResponse) error) error {
			readings, err := logsv1.NewTaskReadServiceClient(conn).ReadStats(ctx, &logsv1.ReadStatsRequest{Task: p.GetTaskId(), Period: req.GetPeriod()})
			if err != nil {
				return err
			}
			for n := uint32(1); ; n++ {
				r, err := readings.Recv()
				if err != nil {
					return err
				}
				alive()
				if err := put(&logsv1.StatsResponse{Task: p, Usage: r.GetUsage()}); err != nil {
					return err
				}
				if n == req.GetReadings() {
					return io.EOF
				}
			}
		},
	}
	return whileIn(ctx, func() error {
		if q.follow {
			return follow(ctx, s.Server, where, q, func(p *logsv1.Place) (*logsv1.StatsResponse, bool) {
				return &logsv1.StatsResponse{Task: p, Ended: true}, true
			}, stream.Send)
		}
		return all(ctx, s.Server, where, q, stream.Send)
	})
}

// all asks once about every task that is there, and sends the answers as they come.
func all[R any](ctx context.Context, s *Server, where *logsv1.PlacesRequest, q *question[R], send func(R) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list, err := s.once(ctx, where)
	if err != nil {
		return err
	}
	out, ended := make(chan R), make(chan struct{})
	for _, p := range list {
		one := &reader[R]{question: q, dispatchers: s.dispatchers, news: make(chan *logsv1.Place, 1)}
		one.put = func(r R) error {
			select {
			case out <- r:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s.tasks.Go(ctx, "reader", func(ctx context.Context) error {
			_ = one.run(ctx, p) // what a person must know has been put
			select {
			case ended <- struct{}{}:
			case <-ctx.Done():
			}
			return nil
		})
	}
	for open := len(list); open > 0; {
		select {
		case r := <-out:
			if err := send(r); err != nil {
				return err
			}
		case <-ended:
			open--
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
