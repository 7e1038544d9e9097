package apply

import (
	"context"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

// settle gathers notices: one change of ours or another's makes many.
const settle = 100 * time.Millisecond

// Watch has the loop look when somebody changes the kernel, until ctx ends. Without notices the clock remains.
func (l *Loop) Watch(ctx context.Context) error {
	for {
		notices := make(chan struct{}, 1)
		watching := run.Async(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, l.tables.Watch(ctx, func() {
				select {
				case notices <- struct{}{}:
				default:
				}
			})
		})
		err := l.heed(ctx, notices, watching)
		if ctx.Err() != nil {
			return nil
		}
		l.env.Log.Warn("kernel not watched, will retry", "error", err)
		if run.Sleep(ctx, period) != nil {
			return nil
		}
	}
}

func (l *Loop) heed(ctx context.Context, notices <-chan struct{}, watching <-chan run.Result[struct{}]) error {
	for {
		select {
		case r := <-watching:
			return r.Err
		case <-notices:
			if err := run.Sleep(ctx, settle); err != nil {
				return (<-watching).Err
			}
			l.suspect()
			l.poke()
		}
	}
}
