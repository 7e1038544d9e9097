//go:build failpoint

package failpoint

import (
	"os"
	"path/filepath"
	"sync"
	"time"
)

var points struct {
	mu      sync.Mutex // guards actions
	actions map[string]func() error
}

// Set gives a point an action; nil takes it away. Only in builds with the tag `failpoint`.
func Set(name string, action func() error) {
	points.mu.Lock()
	defer points.mu.Unlock()
	if points.actions == nil {
		points.actions = map[string]func() error{}
	}
	points.actions[name] = action
}

// Hit runs the action of a point and returns its error; nil when it has none.
func Hit(name string) error {
	points.mu.Lock()
	action := points.actions[name]
	points.mu.Unlock()
	if action == nil {
		stop(filepath.Join(Folder, name))
		return nil
	}
	return action()
}

// stop waits as long as the file with the ending .hit is there, in the place of one without, if there was that.
func stop(file string) {
	if os.Rename(file, file+".hit") != nil {
		return
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := os.Stat(file + ".hit"); err != nil {
			return
		}
	}
}
