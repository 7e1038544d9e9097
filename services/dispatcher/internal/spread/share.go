package spread

import (
	"cmp"
	"math"
	"slices"
)

// Dispatcher is one that takes machines.
type Dispatcher struct {
	// ID is its machine id.
	ID string
	// Weight is the share that it wants, at least 1.
	Weight int
	// Load is how many machines are bound to it.
	Load int
}

// slack is how much more than its share a dispatcher keeps before it hands over: machines come and go, and each move costs
// a commit.
const slack = 1.1

// Excess is how many of the things that a dispatcher has are more than its share of the total; all, if it does not take
// any (it is not among them). It is 0 while nobody else takes machines.
func Excess(have, total int, self string, all []Dispatcher) int {
	weights, own := 0, 0
	for _, d := range all {
		weights += d.Weight
		if d.ID == self {
			own = d.Weight
		}
	}
	if weights == own {
		return 0
	}
	if own == 0 {
		return have
	}
	share := float64(total) * float64(own) / float64(weights)
	whole, part := int(math.Ceil(share)), int(share)
	switch {
	case have > max(whole, int(share*slack)):
		return have - whole
	case have > part && have <= few && emptiest(self, all) < part:
		return 1 // shares of a few are not whole numbers: two, two and none are one too many twice
	}
	return 0
}

// few is up to how many the rest of a division counts.
const few = 10

// emptiest is the lowest load of the others.
func emptiest(self string, all []Dispatcher) int {
	low := math.MaxInt
	for _, d := range all {
		if d.ID != self {
			low = min(low, d.Load)
		}
	}
	return low
}

// To chooses for each of n things where it goes: to the least loaded of the others, each of which counts for the next.
func To(n int, self string, all []Dispatcher) []string {
	others := slices.DeleteFunc(slices.Clone(all), func(d Dispatcher) bool { return d.ID == self })
	if len(others) == 0 {
		return nil
	}
	var out []string
	for range n {
		i := least(others)
		others[i].Load++
		out = append(out, others[i].ID)
	}
	return out
}

// least is the index of the dispatcher with the lowest load for its weight; the first of equals, by id.
func least(all []Dispatcher) int {
	best := 0
	for i, d := range all {
		b := all[best]
		if c := cmp.Compare(d.Load*b.Weight, b.Load*d.Weight); c < 0 || (c == 0 && d.ID < b.ID) {
			best = i
		}
	}
	return best
}
