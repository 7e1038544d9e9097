package liveness

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	tick        = 100 * time.Millisecond
	longestTick = time.Second // a longer gap means that this process was paused
)

// Times are the stages of a silence.
type Times struct {
	// Period is that of heartbeats, of few machines: see Pace. So is Suspect.
	Period  time.Duration
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
	WaitFor(ctx context.Context, v state.Version) error
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
	looked state.Version // at the last tick
	states *prometheus.CounterVec
	pulse  *run.Pulse
}

// New makes one for the dispatcher on machine self. Metrics: shoal_dispatcher_node_states_total.
func New(self string, env run.Env, view View, c *commit.Committer, table *Table, times Times) *Monitor {
	states := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_dispatcher_node_states_total", Help: "Node states that this dispatcher has judged and written.",
	}, []string{"state"})
	env.Metrics.MustRegister(states)
	return &Monitor{
		self: self, log: env.Log, ticker: env.Ticker, view: view, commit: c, table: table, times: times,
		peers: newPeers(self, times), states: states, pulse: run.NewPulse(),
	}
}

// Live lists the machine ids of the other dispatchers whose membership lease is being renewed.
func (m *Monitor) Live() []string {
	if p := m.live.Load(); p != nil {
		return *p
	}
	return nil
}

// Alive waits until the loop of Run comes round.
func (m *Monitor) Alive(ctx context.Context) error { return m.pulse.Ask(ctx) }

// Run watches until ctx ends. Judgements are written beside it, one lot at a time: while the store takes long its ticks
// must go on, or the wait would look like a pause of this process.
func (m *Monitor) Run(ctx context.Context) error {
	t := m.ticker(tick)
	defer t.Stop()
	last, confirmed := time.Now(), time.Now()
	// Kept until it is closed: one that is closed while a tick is judged must be seen afterwards.
	confirmation := m.view.Confirmed()
	var writing <-chan run.Result[struct{}]
	for {
		select {
		case <-m.pulse.C():
			continue
		case <-ctx.Done():
			if writing != nil {
				<-writing
			}
			return nil
		case <-confirmation:
			confirmed, confirmation = time.Now(), m.view.Confirmed()
			continue
		case r := <-writing:
			writing = nil
			if r.Err != nil && ctx.Err() == nil {
				m.log.Warn("node states not written, trying again", "error", r.Err)
			}
			continue
		case <-t.C():
		}
		now := time.Now()
		// Deadlines that passed while this process was paused, or while the store had no leader, start afresh: nobody
		// could have been heard, or could have moved to another dispatcher.
		gap := now.Sub(last)
		if gap > longestTick || now.Sub(confirmed) > longestTick {
			m.table.Restart(now)
			m.peers.restart(now)
		} else if gap > 2*tick {
			// Whoever is this late with its own ticks is late with what it hears too.
			m.table.Delay(gap-tick, now)
		}
		m.table.AwaitTurns(now)
		last = now
		s := m.view.Snapshot()
		if changes := m.judge(s, now); len(changes) > 0 && writing == nil {
			writing = run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.write(ctx, s, changes) })
		}
	}
}

// change is a new state for one machine, on condition that it is still the one judged.
type change struct {
	node    *typesv1.Node
	state   typesv1.NodeState
	message string
}

func (m *Monitor) judge(s *state.Snapshot, now time.Time) []change {
	look := m.changed(s)
	m.adopt(s, look, now)
	silence, live := m.peers.observe(s, look, now)
	others := slices.DeleteFunc(slices.Clone(live), func(id string) bool { return id == m.self })
	m.live.Store(&others)
	return append(m.ownChanges(s, look, now), m.peers.changes(s, silence, live, now)...)
}

// adopt takes over sessions that an earlier life of this dispatcher had.
func (m *Monitor) adopt(s *state.Snapshot, look changed, now time.Time) {
	for n := range look.nodes(s) {
		session := n.GetStatus().GetSession()
		if session.GetDispatcherId() == m.self && n.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_DOWN {
			m.table.Adopt(n.GetMeta().GetId(), session.GetNumber(), now)
		}
	}
}

// ownChanges looks at whom the store has changed, who is silent, who has come, and who is SUSPECT and may be heard again.
func (m *Monitor) ownChanges(s *state.Snapshot, look changed, now time.Time) []change {
	var out []change
	for _, silence := range m.table.Doubtful(now, m.times.Suspect, look.has) {
		n := s.Node(silence.NodeID)
		session := n.GetStatus().GetSession()
		if n == nil || session.GetNumber() > silence.Session {
			m.table.Forget(silence.NodeID, silence.Session)
			continue
		}
		if session.GetNumber() < silence.Session {
			continue // the replica has not seen the session yet
		}
		if c, ok := m.stage(n, silence, now); ok {
			out = append(out, c)
		} else if n.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_READY {
			m.table.Well(silence.NodeID, silence.Session)
		}
	}
	return out
}

func (m *Monitor) stage(n *typesv1.Node, silence Silence, now time.Time) (change, bool) {
	was := n.GetStatus().GetState()
	switch {
	case was == typesv1.NodeState_NODE_STATE_DOWN:
		// It is heard again, or never will be: either way only a new session brings it back.
		m.table.Forget(silence.NodeID, silence.Session)
		return change{}, false
	case silence.For >= m.times.Down:
		return change{n, typesv1.NodeState_NODE_STATE_DOWN, silent(silence.For)}, true
	case silence.For >= m.patience(silence) && was == typesv1.NodeState_NODE_STATE_READY:
		return change{n, typesv1.NodeState_NODE_STATE_SUSPECT, silent(silence.For)}, true
	case was == typesv1.NodeState_NODE_STATE_SUSPECT && now.Sub(silence.Heard) < m.patience(silence):
		// Really heard: a count that was started afresh makes nobody well.
		return change{n, typesv1.NodeState_NODE_STATE_READY, ""}, true
	default:
		return change{}, false
	}
}

// patience is the silence that makes a machine SUSPECT.
func (m *Monitor) patience(s Silence) time.Duration { return max(m.times.Suspect, s.Patience) }

func silent(d time.Duration) string {
	return fmt.Sprintf("no heartbeat for %s", d.Round(100*time.Millisecond))
}
