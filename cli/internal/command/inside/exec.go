package inside

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
)

const (
	// chunk is how much input goes in one message.
	chunk = 32 << 10
	// cannotRun is a shell's code for a program that is not there.
	cannotRun = 127
)

// execFlags are Docker's.
type execFlags struct {
	interactive, tty, sigProxy bool

	start logsv1.ExecStart
}

// Exec is `shoal exec`.
func Exec(a *app.App) *cobra.Command {
	f := &execFlags{}
	c := &cobra.Command{
		Use: "exec [OPTIONS] TASK COMMAND [ARG...]", Short: "Run a command in a running task", Args: app.Between(2, -1),
		Long: "Run a command in a running task, which is SERVICE.SLOT, a task's id, or a service that has one task. The exit code is\n" +
			"the command's; 127 says that the container has no such program.",
		Example: "  shoal exec -it web.1 sh\n  shoal exec -i web.1 sh -c 'cat > /tmp/x' < x",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				f.start.Command = args[1:]
				return f.run(c.Context(), a, cl, args[0])
			})
		},
	}
	s := c.Flags()
	s.SetInterspersed(false) // what follows the task is the command's
	s.BoolVarP(&f.interactive, "interactive", "i", false, "pass on standard input")
	s.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	s.StringArrayVarP(&f.start.Env, "env", "e", nil, "set an environment variable: NAME=value, or NAME for this shell's value")
	s.StringVarP(&f.start.Dir, "workdir", "w", "", "`directory` to run in")
	s.StringVarP(&f.start.User, "user", "u", "", "`user` to run as: NAME or UID[:GID]")
	s.BoolVarP(&f.start.Detach, "detach", "d", false, "let the command run on by itself, without output")
	s.BoolVar(&f.sigProxy, "sig-proxy", true, "pass on signals, when the command has no terminal")
	return app.Completed(c, a.TaskNames)
}

func (f *execFlags) run(ctx context.Context, a *app.App, cl *client.Client, task string) error {
	con := a.Console
	if f.tty && (con == nil || !con.InputIsTerminal()) && f.interactive {
		return errs.New(errs.Invalid, "the input is no terminal; leave -t out")
	}
	f.start.Tty, f.start.Input = f.tty, f.interactive
	f.start.Env = resolve(f.start.Env, a.Getenv)
	if f.tty && con != nil {
		f.start.Size = &logsv1.TerminalSize{}
		f.start.Size.Width, f.start.Size.Height = con.Size()
	}
	if f.sigProxy && !f.tty {
		ctx = context.WithoutCancel(ctx) // Ctrl-C is the command's; the second one is ours
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := cl.Inside.Exec(ctx)
	if err != nil {
		return app.Wrap(err, "exec in %q", task)
	}
	err = stream.Send(&logsv1.ExecRequest{Task: task, Message: &logsv1.ExecRequest_Start{Start: &f.start}})
	if err != nil && !errors.Is(err, io.EOF) {
		return app.Wrap(err, "exec in %q", task)
	}
	code, err := f.talk(ctx, a, stream)
	switch {
	case errs.Is(err, errs.NotFound) && code == running:
		return &app.ExitError{Code: cannotRun, Err: app.Wrap(err, "exec in %q", task)}
	case err != nil:
		return app.Wrap(err, "exec in %q", task)
	case code != 0:
		return &app.ExitError{Code: int(code)}
	}
	return nil
}

func resolve(env []string, getenv func(string) string) (out []string) {
	for _, e := range env {
		if !strings.Contains(e, "=") {
			e += "=" + getenv(e)
		}
		out = append(out, e)
	}
	return out
}

// running is the exit code of a command that has none yet.
const running = -1

type execStream = grpc.BidiStreamingClient[logsv1.ExecRequest, logsv1.ExecResponse]

// talk passes on what is typed and shown until the command ends.
func (f *execFlags) talk(ctx context.Context, a *app.App, stream execStream) (int32, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := make(chan *logsv1.ExecRequest)
	run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		speak(ctx, stream, said)
		return struct{}{}, nil
	})
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = errs.New(errs.Unavailable, "the command's end was not told")
		}
		if err != nil {
			return running, err
		}
		switch m := r.GetMessage().(type) {
		case *logsv1.ExecResponse_Started:
			if f.start.GetDetach() {
				return 0, nil
			}
			restore, err := f.begin(ctx, a, said)
			if err != nil {
				return running, err
			}
			defer restore()
		case *logsv1.ExecResponse_Output:
			if _, err := a.Out.Write(m.Output); err != nil {
				return running, err
			}
		case *logsv1.ExecResponse_Error:
			if _, err := a.Err.Write(m.Error); err != nil {
				return running, err
			}
		case *logsv1.ExecResponse_ExitCode:
			return m.ExitCode, nil
		}
	}
}

// speak is the stream's one sender. Nil is the end of the input.
func speak(ctx context.Context, stream execStream, said <-chan *logsv1.ExecRequest) {
	for {
		var err error
		select {
		case m := <-said:
			if m == nil {
				err = stream.CloseSend()
			} else {
				err = stream.Send(m)
			}
		case <-ctx.Done():
			return
		}
		if err != nil {
			return // the answer says why
		}
	}
}

// begin passes on input, sizes and signals from now on: the command runs.
func (f *execFlags) begin(ctx context.Context, a *app.App, said chan<- *logsv1.ExecRequest) (restore func(), err error) {
	restore = func() {}
	say := func(m *logsv1.ExecRequest) bool {
		select {
		case said <- m:
			return true
		case <-ctx.Done():
			return false
		}
	}
	if f.tty && f.interactive && a.Console != nil {
		if restore, err = a.Console.Raw(); err != nil {
			return nil, err
		}
	}
	if f.interactive && a.In != nil {
		run.Async(ctx, func(context.Context) (struct{}, error) {
			copyInput(a.In, say)
			return struct{}{}, nil
		})
	}
	if a.Console == nil {
		return restore, nil
	}
	if f.tty {
		f.watch(ctx, a, say)
	} else if f.sigProxy {
		signals, stop := a.Console.Signals()
		run.Async(ctx, func(ctx context.Context) (struct{}, error) {
			defer stop()
			for {
				select {
				case s := <-signals:
					if n, ok := s.(syscall.Signal); !ok || !say(&logsv1.ExecRequest{Message: &logsv1.ExecRequest_Signal{Signal: uint32(n)}}) {
						return struct{}{}, nil
					}
				case <-ctx.Done():
					return struct{}{}, nil
				}
			}
		})
	}
	return restore, nil
}

// watch tells the terminal's size when it changes.
func (f *execFlags) watch(ctx context.Context, a *app.App, say func(*logsv1.ExecRequest) bool) {
	changed, stop := a.Console.Resized()
	run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		defer stop()
		for {
			select {
			case <-changed:
				w, h := a.Console.Size()
				if !say(&logsv1.ExecRequest{Message: &logsv1.ExecRequest_Size{Size: &logsv1.TerminalSize{Width: w, Height: h}}}) {
					return struct{}{}, nil
				}
			case <-ctx.Done():
				return struct{}{}, nil
			}
		}
	})
}

// copyInput passes on what is typed, and its end.
func copyInput(in io.Reader, say func(*logsv1.ExecRequest) bool) {
	for {
		buf := make([]byte, chunk)
		n, err := in.Read(buf)
		if n > 0 && !say(&logsv1.ExecRequest{Message: &logsv1.ExecRequest_Input{Input: buf[:n]}}) {
			return
		}
		if err != nil {
			say(nil)
			return
		}
	}
}
