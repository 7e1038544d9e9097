package draft

import (
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
)

// giveBack notes the overlay addresses of a task that is about to be forgotten, so that they rest. What this decision has given
// it nobody has heard of.
func (d *Draft) giveBack(t *typesv1.Task) {
	was := d.Snapshot().Task(t.GetMeta().GetId())
	if was.GetDecided().GetNodeId() == "" {
		return
	}
	since := d.Now // it may have run until now, on a machine that is out of reach
	if state.Terminal(was.GetObserved().GetState()) {
		since = book.EndOf(was)
	}
	for _, ta := range was.GetDecided().GetAddresses() {
		id := ta.GetNetworkId()
		n := d.Book.Pools.Network(id)
		if n == nil {
			continue
		}
		next := book.GiveBack(n, was, since, d.Now)
		if next == nil {
			continue
		}
		d.Book.Pools.SetNetwork(id, next)
		d.note(state.Key{Kind: typesv1.Kind_KIND_NETWORK, ID: id}, n, state.Wrap(next))
		d.RestOn(typesv1.Kind_KIND_NETWORK, id) // the whole list is written
	}
}
