package control

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
)

// farewell is how long a removed store has to hear of it.
const farewell = 300 * time.Millisecond

// leaveGroup takes a machine's store out of the Raft group, if it is in it.
func (a *API) leaveGroup(ctx context.Context, what, machineID string, force bool) error {
	p := a.cfg.Node.View().PeerOn(machineID)
	if p == nil {
		return nil
	}
	if err := a.handOver(ctx, what, p.GetRaftId(), force); err != nil {
		return err
	}
	if err := a.cfg.Node.Remove(ctx, p.GetRaftId(), force); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	// It hears of its removal over the connections that the deny list is about to close.
	return run.Sleep(ctx, farewell)
}

// handOver is nil when the group can do without the member and another one leads. A leader cannot see its own removal, or
// the loss of its vote, through: it gives the leadership away, and the call goes to the next one.
func (a *API) handOver(ctx context.Context, what string, id uint64, force bool) error {
	if err := a.cfg.Node.Spare(ctx, id, force); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if v := a.cfg.Node.View(); id != v.ID {
		return nil
	}
	if err := a.cfg.Node.Transfer(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for {
		v, changed := a.cfg.Node.Watch()
		if v.Leader != 0 && v.Leader != v.ID {
			return errs.New(errs.Unavailable, "the leadership moved: %w", raftnode.NotLeader{})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errs.New(errs.Unavailable, "the leadership could not be given away in time: %w", ctx.Err())
		}
	}
}
