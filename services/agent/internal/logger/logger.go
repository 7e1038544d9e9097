// Package logger is the small process beside each container that keeps its output.
//
// containerd's shim starts it before the container (`shoal-logger logger FOLDER`) with the read ends of the container's
// pipes as files 3 and 4; it ends when both are closed. So it belongs to the container, not to the agent: an agent that is
// killed, upgraded or away changes nothing. It owns the folder's files (package logfile). It must never let the container
// wait: it reads whatever happens to its disk, leaves out what it can't keep, and says so in the log. It starts nothing, and
// dials nothing but the journal. One goroutine reads each pipe; a mutex guards the sink.
package logger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/beside"
	"github.com/shoalproject/shoal/services/agent/internal/logfile"
)

const (
	// The files that a shim gives to a log program, by containerd's documentation (docs of the runtime v2, logging).
	stdoutFile, stderrFile, readyFile = 3, 4, 5
	readSize                          = 64 << 10
	// niceness: a container that says much must not take the machine from the others.
	niceness = 10
	// thinAfter is when a logger gives back the memory that it has needed to start.
	thinAfter = 10 * time.Second
)

// Main is the process. It returns the exit code.
func Main(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: shoal-logger logger FOLDER; containerd's shim starts it")
		return 2
	}
	// It lives as long as the container: a terminal's or shim's signals are about somebody else.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
	runtime.GOMAXPROCS(1)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, niceness) // fails only for lack of rights; then it is as before
	pipes := Pipes{Stdout: os.NewFile(stdoutFile, "stdout"), Stderr: os.NewFile(stderrFile, "stderr")}
	ready := os.NewFile(readyFile, "ready")
	sink := open(args[0])
	if ready != nil {
		_ = ready.Close() // the shim waits for this, and starts the container
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	beside.Async(ctx, thin)
	if err := Keep(ctx, pipes, sink); err != nil {
		fmt.Fprintln(os.Stderr, "shoal-logger:", err)
		return 1
	}
	return 0
}

// thin gives back what starting has cost, not before the container beside it, and those that begin with it, have come up.
func thin(ctx context.Context) (struct{}, error) {
	if err := beside.Sleep(ctx, thinAfter); err != nil {
		return struct{}{}, err
	}
	debug.SetGCPercent(25)
	debug.FreeOSMemory()
	return struct{}{}, nil
}

// Pipes are the read ends of a container's output. A nil one is not there.
type Pipes struct{ Stdout, Stderr *os.File }

// Sink takes what a container says. Its calls may take long, but not for ever, and never fail: what can't be kept is
// counted and told later.
type Sink interface {
	// Put takes what was read from a stream at a time.
	Put(at time.Time, s logfile.Stream, data []byte)
	// End says that the stream has ended.
	End(at time.Time, s logfile.Stream)
	// Close waits for what is under way.
	Close() error
}

// open makes the sink of a folder. A fault of the settings or the disk is told in the log, as soon as there is one.
func open(dir string) Sink {
	s := ReadSettings(dir)
	switch s.Driver {
	case Journal:
		return newJournal(s)
	case None:
		return nothing{}
	}
	return newFiles(dir, s)
}

// Keep reads both pipes to their ends.
func Keep(ctx context.Context, pipes Pipes, sink Sink) error {
	locked := &guard{sink: sink}
	type source struct {
		file *os.File
		of   logfile.Stream
	}
	err := beside.Each(ctx, 0, []source{{pipes.Stdout, logfile.Stdout}, {pipes.Stderr, logfile.Stderr}}, func(_ context.Context, s source) error {
		return locked.read(s.file, s.of)
	})
	return errors.Join(err, sink.Close())
}

// guard lets two readers share a sink.
type guard struct {
	mu   sync.Mutex // guards sink
	sink Sink
}

func (g *guard) read(from *os.File, of logfile.Stream) error {
	if from == nil {
		return nil
	}
	buf := make([]byte, readSize)
	for {
		n, err := from.Read(buf)
		now := time.Now()
		g.mu.Lock()
		if n > 0 {
			g.sink.Put(now, of, buf[:n])
		}
		if err != nil {
			g.sink.End(now, of)
		}
		g.mu.Unlock()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, syscall.EIO): // the other end of a terminal is gone
			return nil
		case errors.Is(err, syscall.EBADF), errors.Is(err, os.ErrInvalid):
			return nil // the shim gave none
		case err != nil:
			return err
		}
	}
}

// nothing keeps nothing.
type nothing struct{}

func (nothing) Put(time.Time, logfile.Stream, []byte) {}
func (nothing) End(time.Time, logfile.Stream)         {}
func (nothing) Close() error                          { return nil }
