// Package spread shares the machines out among dispatchers.
//
// It owns the handing over: all of a dispatcher that is drained, and what is more than its share of one that got company.
// Each machine is told where to go, so that a new dispatcher is found without a restart; what is handed over in a second is
// bounded, so that thousands of machines do not arrive at once. It must never leave a machine without a dispatcher: while
// nobody else takes machines, it keeps them. A Spreader is safe for concurrent use; Run has one caller.
package spread

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	// look is how often the shares are looked at, and lot how many are handed over then, of each kind.
	look    = time.Second
	lot     = 20
	lookJit = 0.5
	// drainLook is the same of a dispatcher that is drained: up to 200 machines a second.
	drainLook = 100 * time.Millisecond
	// settled is how long who takes machines must have stayed the same before anybody is moved for the sake of balance: a
	// dispatcher that restarts gets its machines back only to lose them again else.
	settled = 5 * time.Second
	// part is how much of the excess is handed over at one look.
	part = 10
)

// Carrier has streams of machines.
type Carrier interface {
	// Carries is what they are, for the log.
	Carries() string
	// Carried is how many there are.
	Carried() int
	// HandOver ends one for each error, with it.
	HandOver(reasons []error)
}

// Drain is whether this dispatcher shall take nobody.
type Drain interface{ Wanted() bool }

// Spreader hands machines over.
type Spreader struct {
	self     string
	env      run.Env
	snapshot func() *state.Snapshot
	live     func() []string
	drain    Drain
}

// New makes one for the dispatcher on machine self. Live lists the machine ids of the other live dispatchers.
func New(self string, env run.Env, snapshot func() *state.Snapshot, live func() []string, drain Drain) *Spreader {
	return &Spreader{self: self, env: env, snapshot: snapshot, live: live, drain: drain}
}

// Refusal is why a machine that comes now should go elsewhere; nil: it is welcome.
func (s *Spreader) Refusal() error {
	if !s.drain.Wanted() {
		return nil
	}
	if to := To(1, s.self, s.takers()); len(to) > 0 {
		return directory.Moved(to[0])
	}
	return nil
}

// Run looks now and then, until ctx ends.
func (s *Spreader) Run(ctx context.Context, carriers ...Carrier) error {
	var takers []string
	since := time.Now()
	for {
		wait := s.env.Rand.Jitter(look, lookJit)
		if s.drain.Wanted() {
			wait = drainLook
		}
		if run.Sleep(ctx, wait) != nil {
			return nil
		}
		all := s.takers()
		if now := ids(all); !slices.Equal(now, takers) {
			takers, since = now, time.Now()
		}
		if s.drain.Wanted() || time.Since(since) >= settled {
			for _, c := range carriers {
				s.handOver(c, all)
			}
		}
	}
}

func (s *Spreader) handOver(c Carrier, all []Dispatcher) {
	have, total := c.Carried(), 0
	for range bound(s.snapshot()) {
		total++
	}
	excess := Excess(have, total, s.self, all)
	if excess == 0 {
		return
	}
	n := min(excess, lot)
	if !s.drain.Wanted() {
		n = min(max(excess/part, 1), lot)
	}
	var reasons []error
	for _, to := range To(n, s.self, all) {
		reasons = append(reasons, directory.Moved(to))
	}
	s.env.Log.Info("handed over", "what", c.Carries(), "count", n, "left", have-n, "drained", s.drain.Wanted())
	c.HandOver(reasons)
}

// takers are the dispatchers that take machines, in the order of ids, this one included if it does.
func (s *Spreader) takers() []Dispatcher {
	snap, live := s.snapshot(), s.live()
	load := map[string]int{}
	for dispatcher := range bound(snap) {
		load[dispatcher]++
	}
	var out []Dispatcher
	for m := range snap.MembersOfRole(authzv1.Role_ROLE_DISPATCHER) {
		id := m.GetMachineId()
		takes := slices.Contains(live, id) && !m.GetSpec().GetDrain()
		if id == s.self {
			takes = !s.drain.Wanted()
		}
		if takes {
			out = append(out, Dispatcher{ID: id, Weight: max(1, int(m.GetWeight())), Load: load[id]})
		}
	}
	return out
}

// bound walks the machines in session, as the ids of their dispatchers.
func bound(snap *state.Snapshot) iter.Seq[string] {
	return func(yield func(string) bool) {
		for n := range snap.Nodes() {
			st := n.GetStatus()
			here := st.GetState() == typesv1.NodeState_NODE_STATE_READY || st.GetState() == typesv1.NodeState_NODE_STATE_SUSPECT
			if here && !yield(st.GetSession().GetDispatcherId()) {
				return
			}
		}
	}
}

func ids(all []Dispatcher) []string {
	var out []string
	for _, d := range all {
		out = append(out, d.ID)
	}
	return out
}
