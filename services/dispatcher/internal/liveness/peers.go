package liveness

import (
	"hash/fnv"
	"time"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// LeaseName is the membership lease of the dispatcher on a machine.
func LeaseName(machineID string) string { return "dispatcher/" + machineID }

// peers watches the other dispatchers' membership leases, each by the silence since its revision last rose.
type peers struct {
	self  string
	times Times
	seen  map[string]*peer
	start time.Time // nobody is judged on what was before it
}

type peer struct {
	revision uint64
	renewed  time.Time
}

func newPeers(self string, times Times) *peers {
	return &peers{self: self, times: times, seen: map[string]*peer{}}
}

// restart counts every silence afresh.
func (p *peers) restart(now time.Time) {
	p.start = now
	for _, other := range p.seen {
		other.renewed = now
	}
}

// changes lists the machines of dead dispatchers for which this one speaks. Its agents have moved by themselves; who is
// still bound to it when a machine of its own would have been judged is judged alike.
func (p *peers) changes(s *state.Snapshot, now time.Time, silence map[string]time.Duration, live []string) []change {
	var out []change
	for n := range s.Nodes() {
		st := n.GetStatus()
		bound := st.GetSession().GetDispatcherId()
		if bound == "" || bound == p.self || st.GetState() == typesv1.NodeState_NODE_STATE_DOWN {
			continue
		}
		quiet, known := silence[bound]
		if !known {
			quiet = now.Sub(p.start) // removed from the cluster
		}
		dead := quiet - p.times.Lease
		if dead < p.times.Suspect || chosen(n.GetMeta().GetId(), live) != p.self {
			continue
		}
		switch {
		case dead >= p.times.Down:
			out = append(out, change{n, typesv1.NodeState_NODE_STATE_DOWN, "lost together with its dispatcher"})
		case st.GetState() == typesv1.NodeState_NODE_STATE_READY:
			out = append(out, change{n, typesv1.NodeState_NODE_STATE_SUSPECT, "its dispatcher is gone"})
		}
	}
	return out
}

// observe returns how long each known dispatcher has been silent, and who is live.
func (p *peers) observe(s *state.Snapshot, now time.Time) (silence map[string]time.Duration, live []string) {
	silence = map[string]time.Duration{}
	for m := range s.MembersOfRole(authzv1.Role_ROLE_DISPATCHER) {
		id := m.GetMachineId()
		if id == p.self {
			live = append(live, id)
			continue
		}
		revision := s.Lease(LeaseName(id)).GetMeta().GetRevision()
		other := p.seen[id]
		if other == nil {
			other = &peer{renewed: now}
			p.seen[id] = other
		}
		if revision != other.revision {
			other.revision, other.renewed = revision, now
		}
		silence[id] = now.Sub(other.renewed)
		if silence[id] < p.times.Lease {
			live = append(live, id)
		}
	}
	for id := range p.seen {
		if _, ok := silence[id]; !ok {
			delete(p.seen, id)
		}
	}
	return silence, live
}

// chosen picks the one live dispatcher that speaks for a machine: highest random weight (Thaler and Ravishankar, 1998).
func chosen(nodeID string, live []string) string {
	var best string
	var high uint64
	for _, id := range live {
		h := fnv.New64a()
		_, _ = h.Write([]byte(nodeID + "/" + id))
		if w := h.Sum64(); best == "" || w > high || (w == high && id < best) {
			best, high = id, w
		}
	}
	return best
}

func stateChange(s *state.Snapshot, c change) *storev1.Transaction {
	session := c.node.GetStatus().GetSession()
	n := &typesv1.Node{Meta: &typesv1.Meta{Id: c.node.GetMeta().GetId()}, Status: status(s, c)}
	return &storev1.Transaction{
		Preconditions: []*storev1.Precondition{
			commit.Session(c.node.GetMeta().GetId(), session.GetDispatcherId(), session.GetNumber()),
		},
		Puts: []*storev1.Put{commit.Put(state.Wrap(n), "status")},
	}
}
