package place

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Tally is why nodes do not take a task.
type Tally struct {
	// Refusals are the filters that refuse, most frequent first.
	Refusals []Refusal
	// Nearest is which node is nearest to it, and what would let it pass; "" when nothing is worth saying.
	Nearest string
}

// Refusal is a filter that does not let nodes pass.
type Refusal struct {
	Nodes int
	// Words are to be read after the number of nodes: "lack 200 MiB of memory".
	Words string
}

func (x Refusal) String() string {
	if x.Nodes == 1 {
		return "1 node " + x.Words
	}
	return fmt.Sprintf("%d nodes %s", x.Nodes, x.Words)
}

// String is the reason of a task that no node takes: "no suitable node: 2 nodes are down, 1 node lacks 200 MiB of memory".
func (t Tally) String() string {
	if len(t.Refusals) == 0 {
		return "no suitable node: the cluster has no nodes"
	}
	var parts []string
	for _, x := range t.Refusals {
		parts = append(parts, x.String())
	}
	out := "no suitable node: " + strings.Join(parts, ", ")
	if t.Nearest != "" {
		out += "; " + t.Nearest
	}
	return out
}

// Tally asks of each node why it does not take a task. Those for which causeOf says None are passed over. This is the slow
// path.
func (r *Request) Tally(nodes []*Node, causeOf func(*Node) Cause) Tally {
	type refusal struct {
		cause Cause
		text  string // of the node
	}
	count := map[refusal]int{}
	var order []refusal
	var best nearest
	for _, n := range nodes {
		cause := causeOf(n)
		if cause == None {
			continue
		}
		x := refusal{cause, r.saysOf(n, cause)}
		if count[x]++; count[x] == 1 {
			order = append(order, x)
		}
		best.consider(r, n, x.cause)
	}
	slices.SortStableFunc(order, func(a, b refusal) int {
		oneA, _ := r.words(a.cause, a.text)
		oneB, _ := r.words(b.cause, b.text)
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(oneA, oneB))
	})
	var out Tally
	for _, x := range order {
		one, many := r.words(x.cause, x.text)
		if count[x] > 1 {
			one = many
		}
		out.Refusals = append(out.Refusals, Refusal{count[x], one})
	}
	out.Nearest = best.String()
	return out
}

// Explain is Tally in one line.
func (r *Request) Explain(nodes []*Node, causeOf func(*Node) Cause) string {
	return r.Tally(nodes, causeOf).String()
}

// nearest is the node that could take the task first: one that will have room by itself, one that somebody has only to open,
// one that lacks least.
type nearest struct {
	node *Node
	miss miss
	rank int
	// share is what is missing, in thousandths of what is needed, so that processors and memory compare.
	share int64
}

// miss is what a node is short of.
type miss struct {
	what  string // "200 MiB of memory"
	whole string // what the machine has in all, when that is too little
}

const (
	waitsForStop = iota // what is stopping there holds what the task needs
	closedNode          // and everything else is as it should be
	short
	tooSmall // also with nothing on it
)

func (b *nearest) consider(r *Request, n *Node, c Cause) {
	x := nearest{node: n}
	switch c {
	case Paused, Drained:
		if r.Eligible(n) != None || r.Fits(n, 0) != None || r.MaxReplicas > 0 || len(r.Affinities) > 0 {
			return
		}
		x.rank = closedNode
	case CPUs, Memory, PIDs, Disk:
		x.weigh(r, c)
	default:
		return
	}
	if b.node == nil || cmp.Or(cmp.Compare(x.rank, b.rank), cmp.Compare(x.share, b.share)) < 0 {
		*b = x
	}
}

// weigh finds out by how much the node falls short of one resource, of which it lacks some.
func (b *nearest) weigh(r *Request, c Cause) {
	n, need := b.node, r.of(c, amountOf(r.Need))
	have, used, leaving := r.of(c, n.Have), r.of(c, n.Used), r.of(c, n.Leaving)
	missing := used + need - have
	b.share = int64(float64(missing) / float64(need) * 1000) // need is below 2^53, missing at most need and what is over
	b.rank, b.miss.what = short, amountText(c, missing)
	switch {
	case need > have:
		b.rank, b.miss.whole = tooSmall, amountText(c, have)
		b.share = int64(float64(need-have) / float64(need) * 1000) // whatever is on it
	case missing <= leaving && r.fitsWithout(n):
		b.rank = waitsForStop
	}
}

// fitsWithout reports whether all resources suffice once what is stopping has stopped.
func (r *Request) fitsWithout(n *Node) bool {
	need := amountOf(r.Need)
	return n.Used.CPUs-n.Leaving.CPUs+need.CPUs <= n.Have.CPUs && n.Used.Memory-n.Leaving.Memory+need.Memory <= n.Have.Memory &&
		(n.Have.PIDs == 0 || n.Used.PIDs-n.Leaving.PIDs+need.PIDs <= n.Have.PIDs) &&
		n.Used.Disk-n.Leaving.Disk+need.Disk <= n.Have.Disk
}

// of is one resource of an amount.
func (r *Request) of(c Cause, a Amount) int64 {
	switch c {
	case CPUs:
		return a.CPUs
	case Memory:
		return a.Memory
	case Disk:
		return a.Disk
	default:
		return a.PIDs
	}
}

func amountText(c Cause, amount int64) string {
	switch c {
	case CPUs:
		return Processors(amount)
	case Memory:
		return Bytes(amount) + " of memory"
	case Disk:
		return Bytes(amount) + " of disk"
	default:
		return fmt.Sprintf("%d processes", amount)
	}
}

func (b nearest) String() string {
	switch {
	case b.node == nil:
		return ""
	case b.rank == waitsForStop:
		return b.node.Name() + " has room once what is stopping there has stopped"
	case b.rank == tooSmall:
		return fmt.Sprintf("%s is nearest, and has %s in all", b.node.Name(), b.miss.whole)
	case b.rank == closedNode:
		return b.node.Name() + " would take it if it was active"
	}
	return fmt.Sprintf("%s is nearest, %s short", b.node.Name(), b.miss.what)
}
