package progress

import (
	"context"
	"fmt"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
)

// stopPatience is how long tasks may take to stop before the watch goes: one may be on a machine that is down.
const stopPatience = 30 * time.Second

// Stopped returns when no task of a removed service runs any more. Tasks that do not stop in time are told and left to the
// cluster: that is no fault.
func (w *Watch) Stopped(ctx context.Context, service, name string) error {
	w.screen = screen{out: w.Out, said: map[slotKey]string{}}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	enough := time.NewTimer(stopPatience)
	defer enough.Stop()
	for {
		tasks, err := All(ctx, w.Tasks, "service="+service)
		switch {
		case err != nil && (ctx.Err() != nil || errs.KindOf(err) != errs.Unavailable):
			return endOf(ctx, err)
		case err != nil:
			w.screen.note("waiting for the cluster: " + err.Error())
		default:
			left := 0
			for _, l := range tasks {
				// One that was never reported has nothing to stop; one on a lost machine is not waited for.
				s := l.GetTask().GetObserved().GetState()
				if s != typesv1.TaskState_TASK_STATE_UNSPECIFIED && !state.Terminal(s) && !l.GetTask().GetDecided().GetAbandoned() {
					left++
				}
			}
			if left == 0 {
				return nil
			}
			w.screen.note(fmt.Sprintf("waiting for the tasks of %s to stop: %d left", name, left))
		}
		select {
		case <-tick.C:
		case <-enough.C:
			w.screen.note("they go on stopping in the background")
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
