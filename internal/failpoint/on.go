//go:build failpoint

package failpoint

import "sync"

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
		return nil
	}
	return action()
}
