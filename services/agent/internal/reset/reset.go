// Package reset takes from a machine all that an agent has made on it: containers, their networks, their file systems and
// logs.
//
// It is what `shoal leave` calls after the agent was stopped. It touches nothing that is not the cluster's own, and one
// stuck container does not keep the others.
package reset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/reconcile"
)

// parallel bounds the containers that are stopped at once; grace is what each has to end after its stop signal.
const (
	parallel = 16
	grace    = 10 * time.Second
)

// Machine is what is reset: the runtime and the network of one machine, for one cluster.
type Machine struct {
	Log      *slog.Logger
	Executor reconcile.Executor
	Network  reconcile.Network
	Files    reconcile.Files
}

// Run removes everything. Errors name what is left; it may be called again.
func (m Machine) Run(ctx context.Context) error {
	found, err := m.Executor.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	err = run.Each(ctx, parallel, found, func(ctx context.Context, f container.Found) error {
		if _, err := m.Executor.Remove(ctx, f.ID, container.Stop{Grace: grace}); err != nil {
			return fmt.Errorf("remove container %s: %w", f.ID, err)
		}
		return nil
	})
	nobody := func(string) bool { return false }
	err = errors.Join(err, m.Network.Sweep(ctx, nobody), m.Executor.Sweep(ctx, nobody), m.Executor.SweepLogs(ctx, nobody), m.Files.Sweep(ctx, nobody))
	if err == nil {
		m.Log.Info("machine reset", "containers", len(found))
	}
	return err
}
