package liveness

import (
	"hash/fnv"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// LeaseName is the membership lease of the dispatcher on a machine.
func LeaseName(machineID string) string { return "dispatcher/" + machineID }

// peers watches the other dispatchers' membership leases, each by the silence since its revision last changed. Who is seen
// for the first time counts as renewed then, so nobody is judged on what was before this process's start.
type peers struct {
	self  string
	times Times
	seen  map[string]*peer
	bound map[string]int    // machines by the dispatcher of their session
	of    map[string]string // that dispatcher, by the machine
}

type peer struct {
	revision uint64
	renewed  time.Time
	bound    int  // machines, when last looked at
	most     int  // machines since it was renewed last: how often they beat, and how long they wait, goes by that
	leaving  rush // they reach other dispatchers one after another
}

func newPeers(self string, times Times) *peers {
	return &peers{self: self, times: times, seen: map[string]*peer{}}
}

// restart counts every silence afresh.
func (p *peers) restart(now time.Time) {
	for _, other := range p.seen {
		other.renewed = now
	}
}

// observe returns how long each other dispatcher has been silent, and who is live, itself included. A dispatcher that is
// no member, or not one yet, is known by the machines that are bound to it. Look has the machines that may
// be bound to another than last time.
func (p *peers) observe(s *state.Snapshot, look changed, now time.Time) (silence map[string]time.Duration, live []string) {
	silence = map[string]time.Duration{}
	for m := range s.MembersOfRole(authzv1.Role_ROLE_DISPATCHER) {
		id := m.GetMachineId()
		if id == p.self {
			live = append(live, id)
			continue
		}
		silence[id] = p.silence(s, id, now)
		if silence[id] < p.times.Lease {
			live = append(live, id)
		}
	}
	p.count(s, look)
	for id := range p.bound {
		if _, known := silence[id]; !known && id != p.self {
			silence[id] = p.silence(s, id, now)
		}
	}
	for id, other := range p.seen {
		if _, ok := silence[id]; !ok {
			delete(p.seen, id)
			continue
		}
		for range other.bound - p.bound[id] {
			other.leaving.note(now)
		}
		other.bound = p.bound[id]
		other.most = max(other.most, other.bound)
	}
	return silence, live
}

// count keeps how many machines are bound to each dispatcher.
func (p *peers) count(s *state.Snapshot, look changed) {
	if look.all || p.bound == nil {
		p.bound, p.of = map[string]int{}, map[string]string{}
		for n := range s.Nodes() {
			p.bind(n.GetMeta().GetId(), n)
		}
		return
	}
	for id := range look.ids {
		p.bind(id, s.Node(id))
	}
}

// bind notes whom a machine is bound to; one that is gone, to nobody.
func (p *peers) bind(id string, n *typesv1.Node) {
	was, is := p.of[id], n.GetStatus().GetSession().GetDispatcherId()
	if was == is {
		return
	}
	if was != "" {
		if p.bound[was]--; p.bound[was] == 0 {
			delete(p.bound, was)
		}
		delete(p.of, id)
	}
	if is != "" {
		p.bound[is]++
		p.of[id] = is
	}
}

// queueing says that the machines of a dead dispatcher come to the others so fast that who is still bound to it may wait for
// its turn there: of thousands, the last are back long after they would count as lost. It bounds that wait.
func (p *peers) queueing(id string, dead time.Duration, now time.Time) bool {
	other := p.seen[id]
	return other != nil && dead < longestRush && other.leaving.on(now)
}

func (p *peers) silence(s *state.Snapshot, id string, now time.Time) time.Duration {
	revision := s.Lease(LeaseName(id)).GetMeta().GetRevision()
	other := p.seen[id]
	if other == nil {
		other = &peer{revision: revision, renewed: now}
		p.seen[id] = other
	}
	if revision != other.revision {
		other.revision, other.renewed, other.most = revision, now, other.bound
	}
	return now.Sub(other.renewed)
}

// changes lists the machines of dead dispatchers for which this one speaks. Its agents have moved by themselves; who is
// still bound to it when a machine of its own would have been judged is judged alike.
func (p *peers) changes(s *state.Snapshot, silence map[string]time.Duration, live []string, now time.Time) []change {
	if !p.anyDead(silence) {
		return nil
	}
	var out []change
	for n := range s.Nodes() {
		st := n.GetStatus()
		bound := st.GetSession().GetDispatcherId()
		if bound == "" || bound == p.self || st.GetState() == typesv1.NodeState_NODE_STATE_DOWN {
			continue
		}
		dead := silence[bound] - p.times.Lease
		if dead < p.patience(bound) || p.queueing(bound, dead, now) || chosen(n.GetMeta().GetId(), live) != p.self {
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

// patience is how long a dispatcher must have been dead before its machines are SUSPECT: so long they may have waited for it.
func (p *peers) patience(id string) time.Duration {
	if other := p.seen[id]; other != nil {
		return p.times.Pace(other.most).Patience
	}
	return p.times.Suspect
}

func (p *peers) anyDead(silence map[string]time.Duration) bool {
	for _, d := range silence {
		if d >= p.times.Lease+p.times.Suspect {
			return true
		}
	}
	return false
}

// chosen picks the one live dispatcher that speaks for a machine: highest random weight (Thaler and Ravishankar, 1998).
func chosen(nodeID string, live []string) string {
	var best string
	var high uint64
	for _, id := range live {
		if w := weight(nodeID, id); best == "" || w > high || (w == high && id < best) {
			best, high = id, w
		}
	}
	return best
}

// weight hashes by FNV-1a. Its last bytes hardly reach the high bits, by which weights are compared, so the finalizer of
// SplitMix64 (Steele, Lea and Flood, 2014) spreads them.
func weight(nodeID, dispatcherID string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(nodeID + "/" + dispatcherID)) // a hash takes everything
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
