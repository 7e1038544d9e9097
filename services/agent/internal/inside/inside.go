// Package inside answers calls about single tasks of this machine: their output, what they use, their processes, commands
// in them and their files.
//
// It owns the form of the answers and their bounds. Whether the caller may is decided before a call comes here (the
// dispatcher checks the person's rights); whether the task is this machine's is decided here. It must never start, stop or
// change a container beyond what a command or a file does in it. Safe for concurrent use.
package inside

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// Runtime is what a container runtime must know for it. Errors are told to a person.
type Runtime interface {
	// ReadLog hands what a task has written to put, whose error it returns. Live says whether more may come. NotFound:
	// nothing is kept.
	ReadLog(ctx context.Context, taskID string, req *logsv1.ReadLogRequest, live func(context.Context) bool, put func(*logsv1.ReadLogResponse) error) error
	// Usage reads what a running container uses.
	Usage(ctx context.Context, id string) (*logsv1.Usage, error)
	// Processes lists those of a running container.
	Processes(ctx context.Context, id string) ([]*logsv1.Process, error)
	// Exec runs a command in a running container to its end, and kills it when ctx ends. Started is called when it runs. One that
	// is detached runs on by itself.
	Exec(ctx context.Context, id string, c container.Command, started func() error) (exitCode int32, err error)
	// Put unpacks an archive in a directory of a running container.
	Put(ctx context.Context, id string, p *logsv1.CopyPut, archive io.Reader) (*logsv1.CopyDone, error)
	// Get writes an archive of a path in a running container. Found is called before.
	Get(ctx context.Context, id string, g *logsv1.CopyGet, found func(*logsv1.CopyStat) error, archive io.Writer) error
}

// Tasks are this machine's.
type Tasks interface {
	// Container is the container of a task that is here, and whether more may come of it.
	Container(ctx context.Context, taskID string) (id string, live bool, err error)
}

// Server implements logs.v1.TaskReadService and ExecService for the tasks of this machine.
type Server struct {
	logsv1.UnimplementedTaskReadServiceServer
	logsv1.UnimplementedExecServiceServer

	runtime Runtime
	tasks   Tasks
}

// New makes one.
func New(runtime Runtime, tasks Tasks) *Server { return &Server{runtime: runtime, tasks: tasks} }

// running is the container of a task that may be entered.
func (s *Server) running(ctx context.Context, taskID string) (string, error) {
	id, live, err := s.tasks.Container(ctx, taskID)
	if errs.Is(err, errs.NotFound) || err == nil && !live {
		return "", errs.New(errs.Precondition, "the task has ended: there is nothing to look into any more")
	}
	return id, err
}

// ReadLog implements TaskReadService.
func (s *Server) ReadLog(req *logsv1.ReadLogRequest, stream grpc.ServerStreamingServer[logsv1.ReadLogResponse]) error {
	if err := stream.Send(&logsv1.ReadLogResponse{}); err != nil {
		return err
	}
	live := func(ctx context.Context) bool {
		_, live, err := s.tasks.Container(ctx, req.GetTask())
		return err == nil && live
	}
	pace := pace{rate: readRate}
	return s.runtime.ReadLog(stream.Context(), req.GetTask(), req, live, func(r *logsv1.ReadLogResponse) error {
		if err := pace.wait(stream.Context(), r); err != nil {
			return err
		}
		return stream.Send(r)
	})
}

const (
	defaultPeriod = time.Second
	minPeriod     = 100 * time.Millisecond
)

// ReadStats implements TaskReadService. The share of processors is of the time between two readings.
func (s *Server) ReadStats(req *logsv1.ReadStatsRequest, stream grpc.ServerStreamingServer[logsv1.ReadStatsResponse]) error {
	period := defaultPeriod
	if req.GetPeriod() != nil {
		period = max(req.GetPeriod().AsDuration(), minPeriod)
	}
	ctx := stream.Context()
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	var last *logsv1.Usage
	for {
		id, err := s.running(ctx, req.GetTask())
		if err != nil {
			if last != nil {
				return nil //nolint:nilerr // it has ended, and has been told
			}
			return err
		}
		u, err := s.runtime.Usage(ctx, id)
		if err != nil {
			return err
		}
		if gone := u.GetAt().AsTime().Sub(last.GetAt().AsTime()); last != nil && gone > 0 && u.GetCpu().AsDuration() >= last.GetCpu().AsDuration() {
			u.CpuPercent = float64(u.GetCpu().AsDuration()-last.GetCpu().AsDuration()) / float64(gone) * 100
		}
		last = u
		if err := stream.Send(&logsv1.ReadStatsResponse{Usage: u}); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ListProcesses implements TaskReadService.
func (s *Server) ListProcesses(req *logsv1.ListProcessesRequest, stream grpc.ServerStreamingServer[logsv1.ListProcessesResponse]) error {
	id, err := s.running(stream.Context(), req.GetTask())
	if err != nil {
		return err
	}
	list, err := s.runtime.Processes(stream.Context(), id)
	if err != nil {
		return err
	}
	return stream.Send(&logsv1.ListProcessesResponse{Processes: list})
}
