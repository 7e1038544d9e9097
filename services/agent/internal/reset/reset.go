// Package reset takes from a machine all that an agent has made on it: containers, their networks, their file systems and
// logs.
//
// It is what `shoal leave` calls after the agent was stopped. It touches nothing that is not the cluster's own, and one
// stuck container does not keep the others. A runtime that does not answer keeps nobody waiting: what runs can't be ended without it,
// so that is said, and networks and files are left to what may still use them.
package reset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/reconcile"
)

// parallel bounds the containers that are stopped at once; grace is what each has to end after its stop signal; answer is how long
// the runtime, which is local, may take to list them.
const (
	parallel = 16
	grace    = 10 * time.Second
	answer   = 15 * time.Second
)

// Machine is what is reset: the runtime and the network of one machine, for one cluster.
type Machine struct {
	Log      *slog.Logger
	Executor reconcile.Executor
	Network  reconcile.Network
	Files    reconcile.Files
}

// Run removes everything. Errors name what is left; it may be called again. Unavailable: the runtime does not answer.
func (m Machine) Run(ctx context.Context) error {
	found, err := m.list(ctx)
	if err != nil {
		return err
	}
	removing, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	err = run.Each(removing, parallel, found, func(ctx context.Context, f container.Found) error {
		_, err := m.Executor.Remove(ctx, f.ID, container.Stop{Grace: grace})
		if err == nil {
			return nil
		}
		if errs.Is(err, errs.Unavailable) && ctx.Err() == nil { // one that is stuck, or all
			if _, silent := m.list(ctx); silent != nil {
				giveUp(silent)
			}
		}
		return fmt.Errorf("remove container %s: %w", f.ID, err)
	})
	if silent := context.Cause(removing); silent != nil && ctx.Err() == nil {
		return silent
	}
	nobody := func(string) bool { return false }
	err = errors.Join(err, m.Network.Sweep(ctx, nobody), m.Executor.Sweep(ctx, nobody), m.Executor.SweepLogs(ctx, nobody), m.Files.Sweep(ctx, nobody))
	if err == nil {
		m.Log.Info("machine reset", "containers", len(found))
	}
	return err
}

// list asks the runtime, which says as well whether it answers.
func (m Machine) list(ctx context.Context) ([]container.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	found, err := m.Executor.List(ctx)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "list containers, for which containerd has %s: %w; what is left is still there: "+
			"`systemctl restart containerd`, then try again", answer, err)
	}
	return found, nil
}
