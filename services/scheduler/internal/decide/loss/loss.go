// Package loss guards against believing that many machines have died at once.
//
// It owns the rule of how many lost nodes are replaced how soon. It is pure and decides nothing else.
package loss

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

const (
	defaultPercent = 34
	defaultWindow  = time.Minute
	// few losses are never a mass.
	few = 3
	// HeldBack begins the reason of a task on a lost node that is not replaced yet.
	HeldBack = "replacement is held back: "
)

// Guard is which nodes are lost, and until when the replacement of their tasks is held back.
type Guard struct {
	heldUntil map[string]time.Time
	words     string
}

// Until says until when the tasks of a lost node are not replaced, and why; zero: not at all.
func (g *Guard) Until(n *place.Node) (time.Time, string) { return g.heldUntil[n.ID()], g.words }

func since(n *place.Node) time.Time {
	if t := n.Object.GetStatus().GetSince(); t != nil {
		return t.AsTime()
	}
	return time.Time{}
}

// Find looks at all nodes. When more than a share of them vanishes within a window, a network fault is likelier than so many
// dead machines, and what is left must not be crushed. The share may be replaced at once, and as many again in each further
// window.
func Find(settings *typesv1.SchedulingConfig, nodes []*place.Node) *Guard {
	percent, window := defaultPercent, defaultWindow
	if settings != nil && settings.MassLossPercent != nil {
		percent = int(min(settings.GetMassLossPercent(), 100))
	}
	if settings.GetMassLossWindow() != nil {
		window = settings.GetMassLossWindow().AsDuration()
	}
	out := &Guard{heldUntil: map[string]time.Time{}}
	var down []*place.Node
	total := 0
	for _, n := range nodes {
		lost := since(n)
		if n.Down() && !lost.IsZero() {
			down = append(down, n)
		}
		if n.Closed != place.NotConnected {
			total++
		}
	}
	allowed := max(few, total*percent/100)
	if len(down) <= allowed || percent >= 100 {
		return out
	}
	slices.SortFunc(down, func(a, b *place.Node) int {
		return cmp.Or(since(a).Compare(since(b)), cmp.Compare(a.ID(), b.ID()))
	})
	first := 0
	for i, n := range down {
		lost := since(n)
		for lost.Sub(since(down[first])) > window {
			first++
		}
		if nth := (i - first) / allowed; nth > 0 {
			out.heldUntil[n.ID()] = lost.Add(time.Duration(nth) * window)
		}
	}
	out.words = fmt.Sprintf(HeldBack+"%d of %d nodes were lost, more than %d within %s", len(down), total, allowed, window)
	return out
}
