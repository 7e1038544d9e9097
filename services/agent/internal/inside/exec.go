package inside

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

const (
	// maxArgs and maxArgBytes bound a command and its environment.
	maxArgs, maxArgBytes = 1000, 128 << 10
	// maxChunk is the most that one message carries.
	maxChunk   = 64 << 10
	lastSignal = 64
)

// Exec implements ExecService.
func (s *Server) Exec(stream grpc.BidiStreamingServer[logsv1.ExecRequest, logsv1.ExecResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if err := checkStart(start); err != nil {
		return err
	}
	id, err := s.running(stream.Context(), first.GetTask())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	out := &sender{stream: stream}
	sizes, signals := make(chan container.Size, 1), make(chan uint32, 1)
	cmd := container.Command{
		Args: start.GetCommand(), Env: start.GetEnv(), Dir: start.GetDir(), User: start.GetUser(), TTY: start.GetTty(), Detach: start.GetDetach(),
		Size: sizeOf(start.GetSize()), Sizes: sizes, Signals: signals,
		Stdout: out.writer(func(b []byte) *logsv1.ExecResponse {
			return &logsv1.ExecResponse{Message: &logsv1.ExecResponse_Output{Output: b}}
		}),
		Stderr: out.writer(func(b []byte) *logsv1.ExecResponse {
			return &logsv1.ExecResponse{Message: &logsv1.ExecResponse_Error{Error: b}}
		}),
	}
	input, feed := io.Pipe()
	defer input.Close()
	if start.GetInput() {
		cmd.Stdin = input
	}
	heard := run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, hear(ctx, stream, feed, sizes, signals)
	})
	ended := run.Async(ctx, func(ctx context.Context) (int32, error) {
		return s.runtime.Exec(ctx, id, cmd, func() error {
			return out.send(&logsv1.ExecResponse{Message: &logsv1.ExecResponse_Started{Started: true}})
		})
	})
	for {
		select {
		case r := <-heard:
			if r.Err != nil { // what it says makes no sense, or it has gone: the command goes, too
				cancel()
				<-ended
				return r.Err
			}
			heard = nil
		case r := <-ended:
			if r.Err != nil {
				return r.Err
			}
			if cmd.Detach {
				return nil // it has no exit code yet
			}
			return out.send(&logsv1.ExecResponse{Message: &logsv1.ExecResponse_ExitCode{ExitCode: r.Value}})
		}
	}
}

func checkStart(start *logsv1.ExecStart) error {
	if start == nil {
		return errs.New(errs.Invalid, "the first request of exec must say what to run")
	}
	var c errs.Collector
	size := 0
	for _, a := range append(start.GetCommand(), start.GetEnv()...) {
		size += len(a)
	}
	n := len(start.GetCommand())
	c.Check(n > 0 && n <= maxArgs && start.GetCommand()[0] != "", "start.command", "must have 1 to %d words", maxArgs)
	c.Check(!start.GetDetach() || !start.GetTty(), "start.tty", "a detached command has no terminal")
	c.Check(!start.GetDetach() || !start.GetInput(), "start.input", "a detached command has no input")
	c.Check(len(start.GetEnv()) <= maxArgs, "start.env", "must be at most %d", maxArgs)
	c.Check(size <= maxArgBytes, "start.command", "is longer than %d bytes, with its environment", maxArgBytes)
	return c.Err("exec")
}

func sizeOf(s *logsv1.TerminalSize) container.Size {
	return container.Size{Width: uint16(min(s.GetWidth(), 1<<16-1)), Height: uint16(min(s.GetHeight(), 1<<16-1))}
}

// hear takes what the caller says until its end, which is the end of the command's input.
func hear(ctx context.Context, stream grpc.BidiStreamingServer[logsv1.ExecRequest, logsv1.ExecResponse], feed *io.PipeWriter,
	sizes chan<- container.Size, signals chan<- uint32,
) error {
	defer feed.Close() // never fails
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m := m.GetMessage().(type) {
		case *logsv1.ExecRequest_Input:
			if len(m.Input) > maxChunk {
				return errs.New(errs.Invalid, "input of %d bytes in one request, at most %d", len(m.Input), maxChunk)
			}
			_, _ = feed.Write(m.Input) // a command that has closed its input goes on
		case *logsv1.ExecRequest_Size:
			select {
			case sizes <- sizeOf(m.Size):
			case <-ctx.Done():
				return nil
			}
		case *logsv1.ExecRequest_Signal:
			if m.Signal < 1 || m.Signal > lastSignal {
				return errs.New(errs.Invalid, "there is no signal %d", m.Signal)
			}
			select {
			case signals <- m.Signal:
			case <-ctx.Done():
				return nil
			}
		default:
			return errs.New(errs.Invalid, "exec: a request of an unknown kind, or a second start")
		}
	}
}

// sender lets standard output and error share a stream.
type sender struct {
	mu     sync.Mutex // guards sending
	stream grpc.BidiStreamingServer[logsv1.ExecRequest, logsv1.ExecResponse]
}

func (s *sender) send(m *logsv1.ExecResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(m)
}

func (s *sender) writer(wrap func([]byte) *logsv1.ExecResponse) io.Writer {
	return writerFunc(func(b []byte) error { return s.send(wrap(b)) })
}

// writerFunc sends in pieces.
type writerFunc func([]byte) error

func (f writerFunc) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), maxChunk)]
		if err := f(part); err != nil {
			return n, err
		}
		n, b = n+len(part), b[len(part):]
	}
	return n, nil
}
