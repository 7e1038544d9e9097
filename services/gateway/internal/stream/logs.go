package stream

import (
	"context"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// maxTargets is PlacesRequest's.
const maxTargets = 100

// logs implements logs.v1.LogService.
type logs struct {
	logsv1.UnimplementedLogServiceServer
	*Server
}

// Logs streams the output of tasks.
func (s logs) Logs(req *logsv1.LogsRequest, stream grpc.ServerStreamingServer[logsv1.LogsResponse]) error {
	if err := check(req); err != nil {
		return err
	}
	ctx, err := s.as(stream.Context())
	if err != nil {
		return err
	}
	where := &logsv1.PlacesRequest{Targets: req.GetTargets()}
	return whileIn(ctx, func() error {
		if !req.GetOptions().GetFollow() {
			return s.sorted(ctx, where, req.GetOptions(), stream.Send)
		}
		positions := &positions{}
		return follow(ctx, s.Server, where, questionOf(req.GetOptions(), positions),
			func(*logsv1.Place) (*logsv1.LogsResponse, bool) { return nil, false }, stream.Send)
	})
}

func check(req *logsv1.LogsRequest) error {
	var c errs.Collector
	c.Check(len(req.GetTargets()) > 0 && len(req.GetTargets()) <= maxTargets, "targets", "must be 1 to %d services or tasks", maxTargets)
	o := req.GetOptions()
	if since, until := o.GetSince(), o.GetUntil(); since != nil && until != nil {
		c.Check(since.AsTime().Before(until.AsTime()), "options.until", "must be after since")
	}
	c.Check(o.GetUntil() == nil || !o.GetFollow(), "options.until", "can't be followed: what comes from now on is after it")
	for _, stream := range o.GetStreams() {
		c.Check(stream == logsv1.LogStream_LOG_STREAM_STDOUT || stream == logsv1.LogStream_LOG_STREAM_STDERR, "options.streams", "has an unknown stream")
	}
	return c.Err("read logs")
}

// questionOf asks for one task's output, and goes on after what was read when it is asked again.
func questionOf(o *logsv1.LogOptions, at *positions) *question[*logsv1.LogsResponse] {
	return &question[*logsv1.LogsResponse]{
		follow: o.GetFollow(),
		ends:   true,
		missing: func(p *logsv1.Place, why string) *logsv1.LogsResponse {
			return &logsv1.LogsResponse{Task: p, Missing: why}
		},
		read: func(ctx context.Context, conn grpc.ClientConnInterface, p *logsv1.Place, alive func(), put func(*logsv1.LogsResponse) error) error {
			stream, err := logsv1.NewTaskReadServiceClient(conn).ReadLog(ctx, &logsv1.ReadLogRequest{
				Task: p.GetTaskId(), Options: o, After: at.get(p.GetTaskId()),
			})
			if err != nil {
				return err
			}
			for {
				r, err := stream.Recv()
				if err != nil {
					return err
				}
				alive()
				if r.GetLost() {
					if err := put(&logsv1.LogsResponse{Task: p, Missing: "older lines were let go of before they could be read"}); err != nil {
						return err
					}
				}
				if len(r.GetLines()) > 0 {
					if err := put(&logsv1.LogsResponse{Task: p, Lines: r.GetLines()}); err != nil {
						return err
					}
				}
				at.set(p.GetTaskId(), r.GetPosition())
			}
		},
	}
}
