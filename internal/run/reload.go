package run

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/shoalproject/shoal/internal/beside"
	"github.com/shoalproject/shoal/internal/config"
)

// Reload is how a running process is told to read its config again. One that was made by hand is a test's.
type Reload struct {
	asked <-chan struct{}
	read  func() (config.Base, []string, error)
}

// NewReload makes one: every value on asked is a wish, read reads the config as at the start, and before is the config that
// the process runs with. A config that has no Base, or cannot be read, changes nothing.
func NewReload[C any](asked <-chan struct{}, before C, read func() (C, error)) *Reload {
	return &Reload{asked: asked, read: func() (config.Base, []string, error) {
		next, err := read()
		if err != nil {
			return config.Base{}, nil, err
		}
		base, _ := config.BaseOf(next)
		return base, config.Changed(before, next), nil
	}}
}

// Asked gets a value for each wish. A nil Reload is never asked.
func (r *Reload) Asked() <-chan struct{} {
	if r == nil {
		return nil
	}
	return r.asked
}

// Read reads the config: what all processes have in it, and the keys whose values differ from those that the process was
// started with. Errors tell all faults of the file.
func (r *Reload) Read() (config.Base, []string, error) { return r.read() }

// hangups is a wish for each SIGHUP, until ctx ends. Those that come while one waits are one with it.
func hangups(ctx context.Context) <-chan struct{} {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	asked := make(chan struct{}, 1)
	go beside.Guard(ctx, func(ctx context.Context) error {
		defer signal.Stop(signals)
		for {
			select {
			case <-signals:
				select {
				case asked <- struct{}{}:
				default:
				}
			case <-ctx.Done():
				return nil
			}
		}
	}, func(error) {})
	return asked
}
