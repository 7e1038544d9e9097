package place

import (
	"math"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Remainder is what is left of a machine's resources while reservations are added up one after another.
type Remainder struct {
	amount Amount
	count  map[string]int64       // by kind
	named  map[[2]string]struct{} // kind and piece
}

// Left is all that a node has by now, with nothing taken. What a machine does not tell could not be read, and is not nothing: it
// takes no new task, and what has a place there keeps it.
func Left(n *Node) *Remainder {
	r := &Remainder{amount: Amount{CPUs: told(n.Have.CPUs), Memory: told(n.Have.Memory), Disk: told(n.Have.Disk)}, count: map[string]int64{}, named: map[[2]string]struct{}{}}
	for _, g := range n.Object.GetStatus().GetDescription().GetGeneric() {
		if g.GetNamed() != "" {
			r.named[[2]string{g.GetKind(), g.GetNamed()}] = struct{}{}
		} else {
			r.count[g.GetKind()] += g.GetDiscrete()
		}
	}
	return r
}

func told(have int64) int64 {
	if have <= 0 {
		return math.MaxInt64
	}
	return have
}

// Take takes a reservation, or reports false and leaves all as it was when there is not enough for it.
func (r *Remainder) Take(want *typesv1.Resources) bool {
	if want.GetNanoCpus() > r.amount.CPUs || want.GetMemoryBytes() > r.amount.Memory ||
		want.GetDiskBytes() > r.amount.Disk {
		return false
	}
	for _, g := range want.GetGeneric() {
		_, there := r.named[[2]string{g.GetKind(), g.GetNamed()}]
		if g.GetNamed() != "" && !there || g.GetNamed() == "" && g.GetDiscrete() > r.count[g.GetKind()] {
			return false
		}
	}
	r.amount.CPUs -= want.GetNanoCpus()
	r.amount.Memory -= want.GetMemoryBytes()
	r.amount.Disk -= want.GetDiskBytes()
	for _, g := range want.GetGeneric() {
		delete(r.named, [2]string{g.GetKind(), g.GetNamed()})
		r.count[g.GetKind()] -= g.GetDiscrete()
	}
	return true
}
