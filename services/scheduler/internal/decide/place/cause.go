package place

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/constraint"
)

// Cause is why a node does not take a task.
type Cause uint8

// The causes, in the order in which the filters run.
const (
	None Cause = iota
	NotConnected
	Silent
	Down
	Paused
	Drained
	TrafficOnly
	Held
	Constraint
	Platform
	Tainted
	NoAddress
	CPUs
	Memory
	PIDs
	Generic
	HostPort
	MaxReplicas
	Affinity
	causes
)

// words are for one node and for several.
func (r *Request) words(c Cause, constraintText string) (one, many string) {
	switch c {
	case Constraint:
		return "does not meet " + constraintText, "do not meet " + constraintText
	case Platform:
		return "is not " + platformNames(r.platforms), "are not " + platformNames(r.platforms)
	case CPUs, Memory, PIDs, Generic:
		what := r.wanting(c)
		return "lacks " + what, "lack " + what
	case MaxReplicas:
		what := fmt.Sprintf("%d tasks of the service already", r.MaxReplicas)
		if r.MaxReplicas == 1 {
			what = "a task of the service already"
		}
		return "has " + what, "have " + what
	default:
		words := plain()[c]
		return words[0], words[1]
	}
}

// plain are the words of causes that need no figures.
func plain() [causes][2]string {
	return [causes][2]string{
		NotConnected: {"has not connected yet", "have not connected yet"},
		Silent:       {"does not answer", "do not answer"},
		Down:         {"is down", "are down"},
		Paused:       {"is paused", "are paused"},
		Drained:      {"is drained", "are drained"},
		TrafficOnly:  {"only takes traffic", "only take traffic"},
		Held:         {"was lost again and again and is watched", "were lost again and again and are watched"},
		Tainted:      {"has a taint that it does not tolerate", "have taints that it does not tolerate"},
		NoAddress:    {"has no free address", "have no free address"},
		HostPort:     {"has its host port in use", "have its host port in use"},
		Affinity:     {"is not where its affinities want it", "are not where its affinities want it"},
	}
}

// wanting is the resource that is short.
func (r *Request) wanting(c Cause) string {
	switch c {
	case CPUs:
		return Processors(r.Need.GetNanoCpus())
	case Memory:
		return Bytes(r.Need.GetMemoryBytes()) + " of memory"
	case PIDs:
		return fmt.Sprintf("%d processes", r.Need.GetPids())
	default:
		return r.genericNames()
	}
}

func (r *Request) genericNames() string {
	var out []string
	for _, g := range r.Need.GetGeneric() {
		if g.GetNamed() != "" {
			out = append(out, g.GetKind()+" "+g.GetNamed())
		} else {
			out = append(out, fmt.Sprintf("%d %s", g.GetDiscrete(), g.GetKind()))
		}
	}
	return strings.Join(out, ", ")
}

// Explain says why no node takes a task: "no suitable node: 2 nodes are down, 1 node lacks 200 MiB of memory", most frequent
// first, and which node was nearest to it. CauseOf is asked of each node again: this is the slow path.
func (r *Request) Explain(nodes []*Node, causeOf func(*Node) Cause) string {
	type refusal struct {
		cause Cause
		text  string // of the constraint
	}
	count := map[refusal]int{}
	var order []refusal
	var best nearest
	for _, n := range nodes {
		x := refusal{cause: causeOf(n)}
		if x.cause == Constraint {
			x.text = r.unmet(n)
		}
		if count[x]++; count[x] == 1 {
			order = append(order, x)
		}
		best.consider(r, n, x.cause)
	}
	if len(order) == 0 {
		return "no suitable node: the cluster has no nodes"
	}
	slices.SortStableFunc(order, func(a, b refusal) int {
		oneA, _ := r.words(a.cause, a.text)
		oneB, _ := r.words(b.cause, b.text)
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(oneA, oneB))
	})
	var parts []string
	for _, x := range order {
		one, many := r.words(x.cause, x.text)
		if n := count[x]; n == 1 {
			parts = append(parts, "1 node "+one)
		} else {
			parts = append(parts, fmt.Sprintf("%d nodes %s", n, many))
		}
	}
	return "no suitable node: " + strings.Join(parts, ", ") + best.String()
}

// unmet is the first constraint that a node does not meet.
func (r *Request) unmet(n *Node) string {
	if r.invalid != "" {
		return r.invalid
	}
	i := slices.IndexFunc(r.constraints, func(c constraint.Constraint) bool { return !c.Match(n.Object) })
	if i < 0 {
		return "its constraints"
	}
	return r.constraints[i].String()
}

// nearest is the node that lacks least of one resource, of those that all other filters let pass.
type nearest struct {
	node  *Node
	cause Cause
	short int64 // in thousandths of what is needed
	text  string
}

func (b *nearest) consider(r *Request, n *Node, c Cause) {
	var need, short int64
	var text string
	switch c {
	case CPUs:
		need, short = r.Need.GetNanoCpus(), n.Used.CPUs+r.Need.GetNanoCpus()-n.Have.CPUs
		text = Processors(short)
	case Memory:
		need, short = r.Need.GetMemoryBytes(), n.Used.Memory+r.Need.GetMemoryBytes()-n.Have.Memory
		text = Bytes(short) + " of memory"
	default:
		return
	}
	// In thousandths, so that processors and memory compare; need is below 2^53, and short at most need and what is over.
	share := int64(float64(short) / float64(need) * 1000)
	if b.node == nil || share < b.short {
		*b = nearest{n, c, share, text}
	}
}

func (b nearest) String() string {
	if b.node == nil {
		return ""
	}
	return fmt.Sprintf("; %s is nearest, %s short", b.node.Name(), b.text)
}

// Bytes writes an amount of memory in the largest unit that gives a whole number.
func Bytes(bytes int64) string {
	switch {
	case bytes%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", bytes>>30)
	case bytes%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}

// Processors writes billionths without needless zeros.
func Processors(nano int64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", float64(nano)/1e9), "0"), ".") + " free processors"
}

// Unmet says why a task may not stay on a node: "no longer meets node.labels.disk == ssd".
func (r *Request) Unmet(n *Node) string {
	if r.MayStay(n) == Tainted {
		return "has a taint that it does not tolerate"
	}
	return "no longer meets " + r.unmet(n)
}
