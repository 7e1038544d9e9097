package decide

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// manyFailures of one spec in the window put a node behind all others.
const manyFailures = 5

// bind gives a task without a node the best one and its addresses, or says why it has to wait. Then reason is the words
// for a task that has a place.
func (w *work) bind(svc *typesv1.Service, version uint64, d *typesv1.TaskDecided, reason string) {
	spec := state.SpecOf(svc, version)
	var n *nodeInfo
	var own *typesv1.TaskAddress
	for room := false; !room; {
		var why string
		if n, why = w.choose(specKey{svc.GetMeta().GetId(), version}, spec); why != "" {
			d.Reason = why
			return
		}
		if own, room = w.machineAddress(n); !room {
			n.full = true // and the next best is asked
		}
	}
	addresses, why := w.networkAddresses(spec)
	if why != "" {
		d.Reason = why
		return
	}
	if own != nil {
		addresses = slices.Insert(addresses, 0, own)
	}
	d.NodeId, d.Addresses, d.Reason = n.id(), addresses, reason
	w.restOn(typesv1.Kind_KIND_NODE, n.id())
	w.restOn(typesv1.Kind_KIND_SERVICE, svc.GetMeta().GetId())
}

// choose is the placement rule: of the nodes that pass all filters, first those where this spec has not failed again and
// again, then the one with fewest tasks of this service, then with fewest tasks at all, then by id.
func (w *work) choose(key specKey, spec *typesv1.TaskSpec) (*nodeInfo, string) {
	if why := w.hopeless[key]; why != "" {
		return nil, why
	}
	var best *nodeInfo
	refused := newRefusals()
	for _, n := range w.order {
		if r := n.refuses(spec); r.one != "" {
			refused.add(r)
			continue
		}
		if best == nil || n.compare(best, key) < 0 {
			best = n
		}
	}
	if best == nil {
		// Within one plan nodes only fill up: the next task of this spec need not ask again.
		w.hopeless[key] = refused.String()
		return nil, w.hopeless[key]
	}
	return best, ""
}

func (n *nodeInfo) compare(m *nodeInfo, key specKey) int {
	return cmp.Or(
		cmp.Compare(n.badness(key), m.badness(key)),
		cmp.Compare(n.services[key.service], m.services[key.service]),
		cmp.Compare(n.total, m.total),
		cmp.Compare(n.id(), m.id()),
	)
}

func (n *nodeInfo) badness(key specKey) int {
	if f := n.failures[key]; f >= manyFailures {
		return f
	}
	return 0
}

// refusal is why a node does not take a task, in words for one node and for several.
type refusal struct{ one, many string }

// refuses runs the filters in their order; the zero refusal means that the node fits.
func (n *nodeInfo) refuses(spec *typesv1.TaskSpec) refusal {
	switch n.node.GetStatus().GetState() {
	case typesv1.NodeState_NODE_STATE_UNSPECIFIED:
		return refusal{"has not connected yet", "have not connected yet"}
	case typesv1.NodeState_NODE_STATE_SUSPECT:
		return refusal{"does not answer", "do not answer"}
	case typesv1.NodeState_NODE_STATE_DOWN:
		return refusal{"is down", "are down"}
	case typesv1.NodeState_NODE_STATE_READY:
	}
	switch n.node.GetSpec().GetAvailability() {
	case typesv1.Availability_AVAILABILITY_PAUSE:
		return refusal{"is paused", "are paused"}
	case typesv1.Availability_AVAILABILITY_DRAIN:
		return refusal{"is drained", "are drained"}
	case typesv1.Availability_AVAILABILITY_ACTIVE, typesv1.Availability_AVAILABILITY_UNSPECIFIED:
	}
	if n.full {
		return refusal{"has no free address", "have no free address"}
	}
	if !n.runsContainers() {
		return refusal{"only takes traffic", "only take traffic"}
	}
	description := n.node.GetStatus().GetDescription()
	if want := spec.GetPlacement().GetPlatforms(); !fitsPlatform(want, description.GetPlatform()) {
		return refusal{"is not " + platformNames(want), "are not " + platformNames(want)}
	}
	need := spec.GetResources().GetReservations()
	if c := need.GetNanoCpus(); c > 0 && n.cpus+c > description.GetNanoCpus() {
		words := fmt.Sprintf("%s free processors", decimal(c))
		return refusal{"lacks " + words, "lack " + words}
	}
	if m := need.GetMemoryBytes(); m > 0 && n.memory+m > description.GetMemoryBytes() {
		words := amount(m) + " of memory"
		return refusal{"lacks " + words, "lack " + words}
	}
	return refusal{}
}

func fitsPlatform(want []*typesv1.Platform, have *typesv1.Platform) bool {
	return len(want) == 0 || slices.ContainsFunc(want, func(p *typesv1.Platform) bool {
		return (p.GetOs() == "" || p.GetOs() == have.GetOs()) &&
			(p.GetArchitecture() == "" || p.GetArchitecture() == have.GetArchitecture())
	})
}

func platformNames(ps []*typesv1.Platform) string {
	var names []string
	for _, p := range ps {
		names = append(names, strings.Trim(p.GetOs()+"/"+p.GetArchitecture(), "/"))
	}
	return strings.Join(names, " or ")
}

// refusals counts equal refusals, in the order in which they first came up, which is that of the nodes' ids.
type refusals struct {
	count map[refusal]int
	order []refusal
}

func newRefusals() *refusals { return &refusals{count: map[refusal]int{}} }

func (r *refusals) add(x refusal) {
	if r.count[x] == 0 {
		r.order = append(r.order, x)
	}
	r.count[x]++
}

// String is "no suitable node: 2 nodes are down, 1 node lacks 200 MiB of memory", most frequent first.
func (r *refusals) String() string {
	if len(r.order) == 0 {
		return "no suitable node: the cluster has no nodes"
	}
	slices.SortStableFunc(r.order, func(a, b refusal) int {
		return cmp.Or(cmp.Compare(r.count[b], r.count[a]), cmp.Compare(a.one, b.one))
	})
	var parts []string
	for _, x := range r.order {
		if n := r.count[x]; n == 1 {
			parts = append(parts, "1 node "+x.one)
		} else {
			parts = append(parts, fmt.Sprintf("%d nodes %s", n, x.many))
		}
	}
	return "no suitable node: " + strings.Join(parts, ", ")
}

// amount writes bytes in the largest unit that gives a whole number.
func amount(bytes int64) string {
	switch {
	case bytes%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", bytes>>30)
	case bytes%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}

// decimal writes billionths without needless zeros.
func decimal(nano int64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", float64(nano)/1e9), "0"), ".")
}
