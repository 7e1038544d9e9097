package store

import (
	"context"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
	"github.com/shoalproject/shoal/services/store/internal/watch"
)

// drainLook is how often a drained store that came to lead looks for another leader.
const drainLook = time.Second

// drain gives away what a store has, while that is wanted: the leadership, and the watches of those who have heard where
// else to go. It keeps its vote and its copy of the log: only its removal takes them.
func (s *self) drain(ctx context.Context, hub *watch.Hub) error {
	for {
		if s.process.Drain.Await(ctx, true) != nil {
			return nil
		}
		s.giveLeadership(ctx)
		if s.othersServe() {
			hub.SendAway()
		}
		if run.Sleep(ctx, drainLook) != nil {
			return nil
		}
	}
}

func leads(n *raftnode.Node) bool {
	_, leads := n.Leads()
	return leads
}

func (s *self) giveLeadership(ctx context.Context) {
	if !leads(s.node) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	if err := s.node.Transfer(ctx, drained(s.Snapshot())...); err != nil {
		s.process.Env.Log.Warn("this store is drained and leads on, trying again", "error", err)
	}
}

// drained are the machines whose stores should not lead.
func drained(snap *state.Snapshot) []string {
	var out []string
	for m := range snap.MembersOfRole(authzv1.Role_ROLE_STORE) {
		if m.GetSpec().GetDrain() {
			out = append(out, m.GetMachineId())
		}
	}
	return out
}

// othersServe says that there is a store which is not drained.
func (s *self) othersServe() bool {
	snap := s.Snapshot()
	for m := range snap.MembersOfRole(authzv1.Role_ROLE_STORE) {
		if m.GetMachineId() != s.process.ID.Name && !m.GetSpec().GetDrain() {
			return true
		}
	}
	return false
}
