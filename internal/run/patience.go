package run

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

const (
	// soundLife is how long a process must have lived for its failure to be a first one.
	soundLife = time.Minute
	// firstHold and lastHold bound how long a failed process waits before it ends.
	firstHold = 200 * time.Millisecond
	lastHold  = 10 * time.Second
	// failuresFile counts failures in a row, in the process's folder.
	failuresFile = "failures"
)

// patience lets a process that fails again and again soon after its start wait longer each time before it ends, so that
// its init system, which starts it anew after a fixed pause, does so less and less often. (systemd has RestartSteps for
// this since version 254; Debian 12 has 252.)
type patience struct {
	env  Env
	file string // the process's folder
}

// end waits, if it must, until ctx ends.
func (p patience) end(ctx context.Context, code int, lived time.Duration) {
	name := path.Join(p.file, failuresFile)
	// A folder without an identity is not a process's: nothing may be left in it, or init would take it for remains.
	if _, err := p.env.Files.Stat(path.Join(p.file, "identity")); err != nil {
		return
	}
	if code == exitOK {
		_ = p.env.Files.Remove(name) // it only makes the next wait longer
		return
	}
	hold := lastHold
	if n, err := p.count(name, lived); err == nil {
		hold = min(firstHold<<min(n, 10), lastHold)
	} // a disk that takes no count gets the longest wait
	if ctx.Err() != nil {
		return
	}
	p.env.Log.Info("ends soon, to be started again", "wait", hold)
	p.env.tell("STATUS=failed; ends in " + hold.String() + ", to be started again")
	_ = Sleep(ctx, hold)
}

// count returns how many failures came before this one, and notes it.
func (p patience) count(name string, lived time.Duration) (int, error) {
	data, err := p.env.Files.Read(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(data))) // none, or nonsense: 0
	if lived >= soundLife {
		n = 0
	}
	return max(n, 0), p.env.Files.Write(name, []byte(strconv.Itoa(n+1)+"\n"), 0o600)
}
