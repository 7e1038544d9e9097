package relay

import (
	"sync"
	"time"
)

const (
	// keepTime is how long a link is kept warm. Who was dialled waits longer, so that it is mostly who has dialled that closes.
	keepTime = time.Minute
	hearTime = 90 * time.Second
	// A peer's share of warm links must be above what is open to it at once in a busy moment: else those beyond it cost a handshake each,
	// again and again.
	keepPerPeer = 128
	keepTotal   = 512
)

// links are a loop's.
type links struct {
	stock *stock
	idle  map[string][]*Link // to be used again, by machine; the last used is the last
	eager []*Link            // have something that was not looked at
	// missing are pairs for which a link is dialled.
	missing map[*Pair]struct{}
}

// stock counts the warm links of all loops.
type stock struct {
	mu  sync.Mutex // guards below
	by  map[string]int
	all int
}

// add takes a place for one; false if there is none.
func (s *stock) add(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[string]int{}
	}
	if s.by[node] >= keepPerPeer || s.all >= keepTotal {
		return false
	}
	s.by[node]++
	s.all++
	return true
}

func (s *stock) remove(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.by[node]--; s.by[node] == 0 {
		delete(s.by, node)
	}
}

// Warm counts the links that carry nothing and are kept.
func (r *Relay) Warm() int {
	r.stock.mu.Lock()
	defer r.stock.mu.Unlock()
	return r.stock.all
}

// Sweep closes the links that have carried nothing for long, or must not carry another stream.
func (r *Relay) Sweep() {
	for _, l := range r.all() {
		l.post(order{link: l.sweep})
	}
}

// keep has a link used again, if it may.
func (l *loop) keep(k *Link) bool {
	if !k.fit() || !l.links.stock.add(k.node) {
		return false
	}
	l.links.idle[k.node] = append(l.links.idle[k.node], k)
	return true
}

// warm takes a link that is kept; nil if there is none.
func (l *loop) warm(node string) *Link {
	for {
		list := l.links.idle[node]
		if len(list) == 0 {
			return nil
		}
		k := list[len(list)-1]
		l.unkeep(k)
		if k.fit() {
			return k
		}
		l.closeLink(k)
	}
}

// unkeep takes one out of those that are kept.
func (l *loop) unkeep(k *Link) {
	list := l.links.idle[k.node]
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] != k {
			continue
		}
		copy(list[i:], list[i+1:])
		list[len(list)-1] = nil
		if list = list[:len(list)-1]; len(list) == 0 {
			delete(l.links.idle, k.node)
		} else {
			l.links.idle[k.node] = list
		}
		l.links.stock.remove(k.node)
		return
	}
}

// sweep looks at the links that carry nothing.
func (l *loop) sweep() {
	for _, e := range l.ends {
		k := e.link
		if k == nil || k.pair != nil {
			continue
		}
		quiet := time.Since(k.since)
		if k.peer != nil && quiet > hearTime || k.peer == nil && (quiet > keepTime || !k.fit()) {
			l.closeLink(k)
		}
	}
}
