package rollout

import (
	"math"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// bound is how many slots of a service may be under way, and how many without a running task, for one to follow.
type bound struct{ underWay, missing int }

// bounds are what binds updates, and what binds all else that we take away or move ourselves: drains, rules that are enforced,
// even load. Both look at the same slots, whoever took their tasks. They are the same, unless updates take all slots at once:
// that is said of updates, and nothing else may follow them in it.
type bounds struct{ update, moves bound }

func (r *Rollout) bounds() bounds {
	spec := r.Service.GetSpec()
	return bounds{update: updateBound(spec, r.config()), moves: moveBound(spec, r.config(), r.slots())}
}

// of is what binds one slot's move.
func (b bounds) of(m move) bound {
	if m.dirty || m.why == newPorts {
		return b.update
	}
	return b.moves
}

// slots is how many slots the service is to have, as far as is known.
func (r *Rollout) slots() int {
	if r.Group.PerNode() {
		return len(r.Group.Slots)
	}
	return clamp(state.Replicas(r.Service))
}

func updateBound(spec *typesv1.ServiceSpec, c *typesv1.UpdateConfig) bound {
	b := bound{underWay: parallelism(c), missing: parallelism(c)}
	if spec != nil && spec.MaxUnavailable != nil {
		b.missing = clamp(spec.GetMaxUnavailable())
	}
	return b
}

func moveBound(spec *typesv1.ServiceSpec, c *typesv1.UpdateConfig, slots int) bound {
	b := updateBound(spec, c)
	switch {
	case b.underWay < slots:
	case spec != nil && spec.MaxUnavailable != nil:
		b.underWay = min(b.underWay, b.missing)
	default:
		b = bound{underWay: 1, missing: 1}
	}
	return b
}

// parallelism is the number of slots that an update may have under way.
func parallelism(c *typesv1.UpdateConfig) int {
	switch {
	case c == nil || c.Parallelism == nil:
		return 1
	case c.GetParallelism() == 0: // all at once
		return math.MaxInt32
	}
	return clamp(c.GetParallelism())
}

func clamp(n uint64) int { return int(min(n, math.MaxInt32)) }

// MayMiss is how many of a service's slots may be without a running task because of us, outside of a rollback. Updates says
// whether it is about an update, or about anything else that is not done for its own sake.
func MayMiss(spec *typesv1.ServiceSpec, slots int, updates bool) int {
	if updates {
		return updateBound(spec, spec.GetUpdate()).missing
	}
	return moveBound(spec, spec.GetUpdate(), slots).missing
}
