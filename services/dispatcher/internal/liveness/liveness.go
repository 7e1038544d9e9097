package liveness

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	tick        = 100 * time.Millisecond
	longestTick = time.Second // a longer gap means that this process was paused
	parallel    = 16          // commits at once when many machines vanish
)

// Times are the stages of a silence.
type Times struct {
	Suspect time.Duration
	Down    time.Duration
	// Lease is the life of a dispatcher's membership.
	Lease time.Duration
}

// View is the replica.
type View interface {
	Snapshot() *state.Snapshot
	// Confirmed ticks with everything that the quorum confirmed.
	Confirmed() <-chan struct{}
}

// Monitor turns silences into node states.
type Monitor struct {
	self   string
	log    *slog.Logger
	ticker func(time.Duration) run.Ticker
	view   View
	commit *commit.Committer
	table  *Table
	times  Times
	peers  *peers
	live   atomic.Pointer[[]string]
}

// New makes one for the dispatcher on machine self.
func New(self string, env run.Env, view View, c *commit.Committer, table *Table, times Times) *Monitor {
	return &Monitor{
		self: self, log: env.Log, ticker: env.Ticker, view: view, commit: c, table: table, times: times,
		peers: newPeers(self, times),
	}
}

// Live lists the machine ids of the other dispatchers whose membership lease is being renewed.
func (m *Monitor) Live() []string {
	if p := m.live.Load(); p != nil {
		return *p
	}
	return nil
}

// Run watches until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	t := m.ticker(tick)
	defer t.Stop()
	last, confirmed := time.Now(), time.Now()
	m.peers.restart(last)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.view.Confirmed():
			confirmed = time.Now()
			continue
		case <-t.C():
		}
		now := time.Now()
		// Deadlines that passed while this process was paused, or while the store had no leader, start afresh: nobody
		// could have been heard, or could have moved to another dispatcher.
		if now.Sub(last) > longestTick || now.Sub(confirmed) > longestTick {
			m.table.Restart(now)
			m.peers.restart(now)
		}
		last = now
		m.check(ctx, now)
	}
}

// change is a new state for one machine, on condition that its session is still the one judged.
type change struct {
	node    *typesv1.Node
	state   typesv1.NodeState
	message string
}

func (m *Monitor) check(ctx context.Context, now time.Time) {
	s := m.view.Snapshot()
	m.adopt(s, now)
	silence, live := m.peers.observe(s, now)
	others := slices.DeleteFunc(slices.Clone(live), func(id string) bool { return id == m.self })
	m.live.Store(&others)
	changes := append(m.ownChanges(s, now), m.peers.changes(s, now, silence, live)...)
	if len(changes) == 0 {
		return
	}
	err := run.Each(ctx, parallel, changes, func(ctx context.Context, c change) error { return m.write(ctx, s, c) })
	if err != nil && ctx.Err() == nil {
		m.log.Warn("node state not written, trying again", "error", err)
	}
}

// adopt takes over sessions that an earlier life of this dispatcher had.
func (m *Monitor) adopt(s *state.Snapshot, now time.Time) {
	for n := range s.Nodes() {
		session := n.GetStatus().GetSession()
		if session.GetDispatcherId() == m.self && n.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_DOWN {
			m.table.Adopt(n.GetMeta().GetId(), session.GetNumber(), now)
		}
	}
}

func (m *Monitor) ownChanges(s *state.Snapshot, now time.Time) []change {
	var out []change
	for _, silence := range m.table.Silences(now) {
		n := s.Node(silence.NodeID)
		session := n.GetStatus().GetSession()
		if n == nil || session.GetNumber() > silence.Session {
			m.table.Forget(silence.NodeID, silence.Session)
			continue
		}
		if session.GetNumber() < silence.Session {
			continue // the replica has not seen the session yet
		}
		if c, ok := m.judge(n, silence); ok {
			out = append(out, c)
		}
	}
	return out
}

func (m *Monitor) judge(n *typesv1.Node, silence Silence) (change, bool) {
	was := n.GetStatus().GetState()
	switch {
	case was == typesv1.NodeState_NODE_STATE_DOWN:
		// It is heard again, or never will be: either way only a new session brings it back.
		m.table.Forget(silence.NodeID, silence.Session)
		return change{}, false
	case silence.For >= m.times.Down:
		return change{n, typesv1.NodeState_NODE_STATE_DOWN, silent(silence.For)}, true
	case silence.For >= m.times.Suspect && was == typesv1.NodeState_NODE_STATE_READY:
		return change{n, typesv1.NodeState_NODE_STATE_SUSPECT, silent(silence.For)}, true
	case silence.For < m.times.Suspect && was == typesv1.NodeState_NODE_STATE_SUSPECT:
		return change{n, typesv1.NodeState_NODE_STATE_READY, ""}, true
	default:
		return change{}, false
	}
}

func silent(d time.Duration) string {
	return fmt.Sprintf("no heartbeat for %s", d.Round(100*time.Millisecond))
}

// write sets a machine's state on condition that its session has not moved. A refusal means that it has: a machine that
// has meanwhile reached another dispatcher wins.
func (m *Monitor) write(ctx context.Context, s *state.Snapshot, c change) error {
	ctx, cancel := context.WithTimeout(ctx, longestTick)
	defer cancel()
	tx := stateChange(s, c)
	if _, err := m.commit.Do(ctx, tx); err != nil && commit.RefusalOf(err) == nil {
		return err
	}
	m.log.Info("node state", "node", c.node.GetMeta().GetId(), "state", c.state.String(), "reason", c.message)
	return nil
}

func status(s *state.Snapshot, c change) *typesv1.NodeStatus {
	st, _ := proto.Clone(c.node.GetStatus()).(*typesv1.NodeStatus)
	st.State, st.Message, st.Since = c.state, c.message, timestamppb.New(s.ClusterTime())
	return st
}
