// Package silence says which machines new connections should not be led to while nobody else can say it.
//
// As long as the store has a leader, the cluster takes a machine that is off out of all tables. Without one it cannot, and the
// tables go on naming it: then each meshproxy knocks at the machines that it would lead connections to, and leaves out those
// that do not answer. It owns when whom is to be knocked at, and who is left out. Its own cable must not look like everybody
// else's death: a machine is left out only if another one has answered since.
//
// It is pure: no socket, no clock; time is an argument. A Watch has one user.
package silence

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// News is what the machine's tables are worth.
type News int

// The news. Away: there is no line to a dispatcher. Stale: the dispatcher hears no quorum. Fresh: they are the newest.
const (
	Away News = iota
	Stale
	Fresh
)

const (
	// hesitation is how long a line to a dispatcher may be away before anybody is knocked at: most are back at once.
	hesitation = 500 * time.Millisecond
	// period is the time between two knocks at one machine.
	period = time.Second
	// enough is how long, and patience how many knocks in a row, a machine must not answer to be left out.
	enough   = 3 * time.Second
	patience = 3
	// apart is how much later than its first silence somebody else must have been heard: less may be one cable's end.
	apart = time.Second
	// afterglow is how long fresh tables do not bring back a silent machine: the cluster counts its time anew, and names it
	// until that has passed.
	afterglow = 10 * time.Second
	// rate is how many knocks a second a machine sends at most, and crowd how many machines without tasks it asks to know that
	// its own line is well.
	rate  = 100
	crowd = 3
)

// Watch is one machine's.
type Watch struct {
	self  string // its id
	news  News
	since time.Time // when the news became so
	doubt bool      // somebody has been knocked at since the last fresh tables
	peers map[string]*peer
	pause time.Time // no knock before it
}

// peer is another machine.
type peer struct {
	due    time.Time // of its next knock
	asked  time.Time // when the one under way was sent; zero: none is
	heard  time.Time // when the last one that was answered was sent
	first  time.Time // when the first of those was sent that were not answered since
	waited time.Time // until when it was waited for
	missed int
	latest time.Time // when the last knock at anybody else was sent that was answered, as of its own last knock
	alone  bool      // it is silent while somebody else is heard
}

// New is a machine's that has heard nothing yet.
func New(now time.Time, self string) *Watch {
	return &Watch{self: self, since: now, peers: map[string]*peer{}}
}

// News takes what the tables are worth from now on.
func (w *Watch) News(now time.Time, n News) {
	if n != w.news {
		w.news, w.since = n, now
	}
}

// Peers takes the machines that hold tasks, and the others: a few of those are asked too.
func (w *Watch) Peers(holders, others []string) {
	want := map[string]bool{}
	for _, id := range holders {
		want[id] = true
	}
	for _, id := range others[:min(crowd, len(others))] {
		want[id] = true
	}
	for id := range want {
		if w.peers[id] == nil {
			w.peers[id] = &peer{}
		}
	}
	maps.DeleteFunc(w.peers, func(id string, _ *peer) bool { return !want[id] })
}

// Next is whom to knock at now, if ok; else when to ask again, if ever.
func (w *Watch) Next(now time.Time) (node string, ok bool, wake time.Time) {
	if w.news == Fresh && !w.doubt {
		return "", false, time.Time{}
	}
	if w.news == Fresh && now.Sub(w.since) >= afterglow {
		w.forget()
		return "", false, time.Time{}
	}
	begin := w.since
	if w.news == Away && !w.doubt {
		begin = begin.Add(hesitation)
	}
	var best *peer
	for id, p := range w.peers {
		if !p.asked.IsZero() || w.news == Fresh && !p.silent() {
			continue
		}
		if best == nil || cmp.Or(p.due.Compare(best.due), w.order(id, node)) < 0 {
			node, best = id, p
		}
	}
	if best == nil {
		return "", false, w.end()
	}
	if wake = latest(begin, w.pause, best.due); wake.After(now) {
		return "", false, wake
	}
	best.asked, best.latest = now, w.heard()
	w.doubt, w.pause = true, now.Add(time.Second/rate)
	return node, true, time.Time{}
}

// order is that in which machines are knocked at: each begins with the one behind itself. All hear at the same moment that the
// tables are stale; if all began with the same machine, its queue would overflow, and it would look silent.
func (w *Watch) order(a, b string) int {
	before := func(id string) int {
		if id < w.self {
			return 1
		}
		return 0
	}
	return cmp.Or(before(a)-before(b), cmp.Compare(a, b))
}

// end is when fresh tables have the last word.
func (w *Watch) end() time.Time {
	if w.news == Fresh {
		return w.since.Add(afterglow)
	}
	return time.Time{}
}

// forget begins anew: the cluster says who is there.
func (w *Watch) forget() {
	w.doubt = false
	for id := range w.peers {
		w.peers[id] = &peer{}
	}
}

// Answer takes how a knock went.
func (w *Watch) Answer(now time.Time, node string, answered bool) {
	p := w.peers[node]
	if p == nil || p.asked.IsZero() {
		return
	}
	sent := p.asked
	p.asked = time.Time{}
	if answered {
		*p = peer{heard: sent, due: sent.Add(period)}
		return
	}
	if p.missed++; p.missed == 1 {
		p.first = sent
	}
	p.waited, p.due = now, latest(now, sent.Add(period))
	// Somebody has answered well after it fell silent, and before it was knocked at once more: it is not this machine that is
	// cut off, nor was it so until just now.
	p.alone = p.alone || p.silent() && p.latest.Sub(p.first) >= apart
}

// silent says that it has not answered for long enough.
func (p *peer) silent() bool {
	return p.missed >= patience && p.waited.Sub(p.first) >= enough
}

// Out are the machines to leave out, in order of their ids.
func (w *Watch) Out() []string {
	var out []string
	for id, p := range w.peers {
		if p.alone {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// heard is when the last knock was sent that anybody has answered.
func (w *Watch) heard() (last time.Time) {
	for _, p := range w.peers {
		last = latest(last, p.heard)
	}
	return last
}

func latest(all ...time.Time) time.Time {
	return slices.MaxFunc(all, time.Time.Compare)
}
