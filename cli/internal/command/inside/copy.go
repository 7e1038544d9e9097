package inside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/archive"
	"github.com/shoalproject/shoal/cli/internal/client"
)

// copyFlags are Docker's.
type copyFlags struct{ owners, follow, quiet bool }

// Copy is `shoal cp`.
func Copy(a *app.App) *cobra.Command {
	var f copyFlags
	c := &cobra.Command{
		Use: "cp [OPTIONS] TASK:SRC_PATH DEST_PATH|-\n  shoal cp [OPTIONS] SRC_PATH|- TASK:DEST_PATH", Short: "Copy files into a running task or out of it",
		Args: app.Exactly(2),
		Long: "Copy files between this machine and a running task. - is a tar archive on standard input or output. Where the target is a\n" +
			"directory, the source is put into it; else it takes the target's name. Links never lead out of a container, nor out of\n" +
			"the target's directory.",
		Example: "  shoal cp web.1:/etc/nginx .\n  shoal cp index.html web.1:/usr/share/nginx/html/\n  tar c data | shoal cp - web.1:/srv",
		RunE: func(c *cobra.Command, args []string) error {
			from, fromPath, fromTask := cutTask(args[0])
			to, toPath, toTask := cutTask(args[1])
			if fromTask == toTask {
				return &app.UsageError{Err: errors.New("one side must be in a task, as TASK:PATH, and the other on this machine")}
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				if fromTask {
					return app.Wrap(f.get(c.Context(), a, cl, from, fromPath, args[1]), "copy from %q", from)
				}
				return app.Wrap(f.put(c.Context(), a, cl, args[0], to, toPath), "copy to %q", to)
			})
		},
	}
	s := c.Flags()
	s.BoolVarP(&f.owners, "archive", "a", false, "keep owners (into a task)")
	s.BoolVarP(&f.follow, "follow-link", "L", false, "follow a link at the end of the source's path")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "say nothing when it is done")
	return app.Completed(c, func(ctx context.Context) []string {
		var out []string
		for _, n := range a.TaskNames(ctx) {
			out = append(out, n+":")
		}
		return out
	})
}

// cutTask splits TASK:PATH. A path with a slash or dot before its colon is a file of this machine, as Docker has it.
func cutTask(arg string) (task, inside string, ok bool) {
	task, inside, ok = strings.Cut(arg, ":")
	if !ok || task == "" || strings.HasPrefix(arg, ".") || strings.Contains(task, "/") {
		return "", "", false
	}
	return task, path.Join("/", inside) + slash(inside), true
}

// slash keeps the one at the end, which says that a directory is meant.
func slash(p string) string {
	if strings.HasSuffix(p, "/") && path.Join("/", p) != "/" {
		return "/"
	}
	return ""
}

type copyStream = grpc.BidiStreamingClient[logsv1.CopyRequest, logsv1.CopyResponse]

// look says what a path in a task is. NotFound: nothing.
func look(ctx context.Context, cl *client.Client, task, name string) (*logsv1.CopyStat, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, st, err := open(ctx, cl, task, &logsv1.CopyGet{Path: name, Follow: true})
	return st, err
}

func open(ctx context.Context, cl *client.Client, task string, get *logsv1.CopyGet) (copyStream, *logsv1.CopyStat, error) {
	stream, err := cl.Inside.Copy(ctx)
	if err != nil {
		return nil, nil, err
	}
	err = stream.Send(&logsv1.CopyRequest{Task: task, Message: &logsv1.CopyRequest_Get{Get: get}})
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	r, err := stream.Recv()
	if err != nil {
		return nil, nil, err
	}
	return stream, r.GetStat(), nil
}

// get brings a path of a task to this machine.
func (f copyFlags) get(ctx context.Context, a *app.App, cl *client.Client, task, name, to string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, st, err := open(ctx, cl, task, &logsv1.CopyGet{Path: name, Follow: f.follow})
	if err != nil {
		return err
	}
	data := &received{stream: stream}
	if to == "-" {
		_, err := io.Copy(a.Out, data)
		return err
	}
	dir, base, err := place(to, st.GetName(), func(p string) (bool, error) {
		info, err := os.Stat(p)
		return err == nil && info.IsDir(), err
	})
	if err != nil {
		return err
	}
	if err := archive.Unpack(data, dir, base); err != nil {
		return err
	}
	f.done(a, task+":"+name, filepath.Join(dir, base))
	return nil
}

// place says where a source goes: into a target that is a directory, else under the target's own name.
func place(target, name string, isDir func(string) (bool, error)) (dir, base string, err error) {
	clean := path.Clean(target)
	there, err := isDir(clean)
	switch {
	case there:
		if name == "." || name == "/" {
			return clean, ".", nil // all that is in the root
		}
		return clean, name, nil
	case err == nil && strings.HasSuffix(target, "/"):
		return "", "", errs.New(errs.Invalid, "%s is no directory", target)
	case err == nil, errs.Is(err, errs.NotFound), errors.Is(err, os.ErrNotExist):
		if strings.HasSuffix(target, "/") {
			return "", "", errs.New(errs.NotFound, "there is no directory %s", target)
		}
		return path.Dir(clean), path.Base(clean), nil
	}
	return "", "", err
}

func (f copyFlags) done(a *app.App, from, to string) {
	if !f.quiet {
		fmt.Fprintf(a.Err, "Copied %s to %s\n", from, to)
	}
}

// received is the archive that comes.
type received struct {
	stream copyStream
	rest   []byte
}

func (r *received) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		m, err := r.stream.Recv()
		if err != nil {
			return 0, err
		}
		r.rest = m.GetData()
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// put brings files of this machine into a task.
func (f copyFlags) put(ctx context.Context, a *app.App, cl *client.Client, from, task, to string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if from == "-" {
		if a.In == nil {
			return errs.New(errs.Invalid, "there is no standard input")
		}
		return f.send(ctx, cl, task, path.Clean(to), func(w io.Writer) error {
			_, err := io.Copy(w, a.In)
			return err
		})
	}
	source := filepath.Clean(from)
	if f.follow {
		resolved, err := filepath.EvalSymlinks(source)
		if err != nil {
			return err
		}
		source = resolved
	}
	if _, err := os.Lstat(source); err != nil {
		return err
	}
	abs, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	dir, base, err := place(to, filepath.Base(abs), func(p string) (bool, error) {
		st, err := look(ctx, cl, task, p)
		return st.GetDir(), err
	})
	if err != nil {
		return err
	}
	if err := f.send(ctx, cl, task, dir, func(w io.Writer) error { return archive.Pack(w, source, base) }); err != nil {
		return err
	}
	f.done(a, from, task+":"+path.Join(dir, base))
	return nil
}

// send passes an archive on while it is made.
func (f copyFlags) send(ctx context.Context, cl *client.Client, task, dir string, write func(io.Writer) error) error {
	stream, err := cl.Inside.Copy(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&logsv1.CopyRequest{Task: task, Message: &logsv1.CopyRequest_Put{Put: &logsv1.CopyPut{Dir: dir, Owners: f.owners}}})
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := stream.Recv(); err != nil { // the way there is clear
		return err
	}
	sent := run.Async(ctx, func(context.Context) (struct{}, error) {
		if err := write(sending{stream}); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, stream.CloseSend()
	})
	answered := run.Async(ctx, func(context.Context) (struct{}, error) {
		_, err := stream.Recv()
		return struct{}{}, err
	})
	for {
		select {
		case r := <-sent:
			if r.Err != nil && !errors.Is(r.Err, io.EOF) { // then the answer says why
				return r.Err
			}
			sent = nil
		case r := <-answered:
			return r.Err
		}
	}
}

type sending struct{ stream copyStream }

func (s sending) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), chunk)]
		if err := s.stream.Send(&logsv1.CopyRequest{Message: &logsv1.CopyRequest_Data{Data: part}}); err != nil {
			return n, err
		}
		n, b = n+len(part), b[len(part):]
	}
	return n, nil
}
