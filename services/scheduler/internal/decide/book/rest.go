package book

import (
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	// RestTime is how long an address of an overlay that was given back is not given again, so that who still sends to it
	// reaches no stranger. Where nothing else is free, the one that has rested longest is given all the same.
	RestTime = 5 * time.Minute
	// mostResting bounds what a network remembers. Beyond it the oldest are forgotten, and rest no longer.
	mostResting = 512
)

// ended are the addresses of tasks that have ended and are still there, by network, with the tasks and when they ended.
type ended map[string]map[netip.Addr]map[string]time.Time

func (e ended) note(t *typesv1.Task, is bool) {
	if !state.Terminal(t.GetObserved().GetState()) {
		return
	}
	for network, a := range overlayAddresses(t) {
		of := e[network]
		switch {
		case is && of == nil:
			of = map[netip.Addr]map[string]time.Time{}
			e[network] = of
		case !is:
			if delete(of[a], t.GetMeta().GetId()); len(of[a]) == 0 {
				delete(of, a)
			}
			continue
		}
		if of[a] == nil {
			of[a] = map[string]time.Time{}
		}
		of[a][t.GetMeta().GetId()] = EndOf(t)
	}
}

// EndOf is when a task's addresses were given back at the latest, in cluster time: what is written of it later does no harm.
func EndOf(t *typesv1.Task) time.Time { return t.GetMeta().GetUpdatedAt().AsTime() }

func overlayAddresses(t *typesv1.Task) func(yield func(string, netip.Addr) bool) {
	return func(yield func(string, netip.Addr) bool) {
		for _, ta := range t.GetDecided().GetAddresses() {
			if ta.GetNetworkId() == "" {
				continue // the machine network's are next-fit, and no more
			}
			for _, text := range ta.GetAddresses() {
				if p, err := netip.ParsePrefix(text); err == nil && !yield(ta.GetNetworkId(), p.Addr()) {
					return
				}
			}
		}
	}
}

// given are a network's resting addresses, read once.
type given struct {
	from  *typesv1.Network
	since map[netip.Addr]time.Time
}

// SetNetwork takes over a network's new state, or forgets it (nil).
func (p *Pools) SetNetwork(id string, n *typesv1.Network) {
	if n == nil {
		delete(p.networks, id)
		return
	}
	p.networks[id] = given{from: n}
}

// Network is a network as the decision has left it, nil if there is none.
func (p *Pools) Network(id string) *typesv1.Network { return p.networks[id].from }

// Since is when an address was given back last; zero: not lately.
func (p *Pools) Since(network string, a netip.Addr) (since time.Time) {
	g := p.networks[network]
	if g.since == nil && len(g.from.GetResting()) > 0 {
		g.since = make(map[netip.Addr]time.Time, len(g.from.GetResting()))
		for _, r := range g.from.GetResting() {
			if a, err := netip.ParseAddr(r.GetAddress()); err == nil {
				g.since[a] = r.GetSince().AsTime()
			}
		}
		p.networks[network] = g
	}
	since = g.since[a]
	for _, at := range p.ended[network][a] {
		if at.After(since) {
			since = at
		}
	}
	return since
}

// GiveBack is a network whose addresses a task that is forgotten has given back; nil if it had none there, or long ago.
func GiveBack(n *typesv1.Network, t *typesv1.Task, since, now time.Time) *typesv1.Network {
	var list []*typesv1.RestingAddress
	at := timestamppb.New(since)
	for network, a := range overlayAddresses(t) {
		if network == n.GetMeta().GetId() && now.Sub(since) < RestTime {
			list = append(list, &typesv1.RestingAddress{Address: a.String(), Since: at})
		}
	}
	// They are kept in the order of their times, the longest first: what has rested enough is in front, and what is new comes last or
	// nearly so.
	then := func(r *typesv1.RestingAddress, at time.Time) int { return r.GetSince().AsTime().Compare(at) }
	enough, _ := slices.BinarySearchFunc(n.GetResting(), now.Add(-RestTime).Add(1), then)
	kept := make([]*typesv1.RestingAddress, 0, len(n.GetResting())+len(list))
	for _, r := range n.GetResting()[enough:] {
		i := slices.IndexFunc(list, func(x *typesv1.RestingAddress) bool { return x.GetAddress() == r.GetAddress() })
		if i >= 0 && then(r, since) <= 0 {
			continue // it was given back once more
		}
		if kept = append(kept, r); i >= 0 {
			list = slices.Delete(list, i, i+1) // another task has had it since
		}
	}
	if len(list) == 0 {
		return nil
	}
	place, _ := slices.BinarySearchFunc(kept, since, then)
	list = slices.Insert(kept, place, list...)
	list = list[max(0, len(list)-mostResting):]
	return &typesv1.Network{Meta: n.GetMeta(), Spec: n.GetSpec(), Ipam: n.GetIpam(), Resting: list}
}

// setNetwork takes over a network's new state. It is true if nothing but what rests there has changed: then no service need be
// looked at for it, since a task waits for no address to have rested.
func (b *Book) setNetwork(id string, n *typesv1.Network) (restsOnly bool) {
	was := b.Pools.Network(id)
	b.Pools.SetNetwork(id, n)
	return was != nil && n != nil && proto.Equal(was.GetSpec(), n.GetSpec()) && proto.Equal(was.GetIpam(), n.GetIpam())
}
