package place

import (
	"cmp"
	"fmt"
	"slices"
)

// Judgement is what speaks for and against a node for one task.
type Judgement struct {
	Node *Node
	// Cause is the filter that does not let it pass.
	Cause Cause
	// Failures of the spec there, wishes that it does not grant, tasks of the service, and Load, in the order in which they
	// count; after the shares.
	Failures, Wishes, Tasks int
	Load                    uint64
	// Shares are the parts of the cluster that it belongs to, one for each preference.
	Shares []Share

	req   *Request
	order entry
}

// Share is a part of the cluster.
type Share struct {
	Key, Value string
	Tasks      int // of the service
}

// Passes reports whether every filter lets the node pass.
func (j Judgement) Passes() bool { return j.Cause == None }

// Refusal says why the node does not pass, to be read after its name; "" when it does.
func (j Judgement) Refusal() string {
	switch j.Cause {
	case None:
		return ""
	case Constraint:
		one, _ := j.req.words(j.Cause, j.req.unmet(j.Node))
		return one
	default:
		one, _ := j.req.words(j.Cause, "")
		return one
	}
}

// Resources is what is reserved of what the node has, of the resources that the task needs.
func (j Judgement) Resources() []string { return j.req.figures(j.Node) }

// Judge looks at nodes as they are now. Those that pass come first, the best in front; of the others the order is that of ids.
// It is no part of a decision, and the slow path.
func (p *Picker) Judge(nodes []*Node) []Judgement {
	if p.root == nil {
		p.look()
	}
	out := make([]Judgement, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, p.judge(n))
	}
	slices.SortStableFunc(out, Judgement.compare)
	// With several preferences the branches are compared by their best nodes, and no order of all nodes says that.
	if best, _ := p.Best(); best != nil {
		if i := slices.IndexFunc(out, func(j Judgement) bool { return j.Node == best }); i > 0 {
			first := out[i]
			copy(out[1:i+1], out[:i])
			out[0] = first
		}
	}
	return out
}

func (p *Picker) judge(n *Node) Judgement {
	j := Judgement{Node: n, Cause: p.Refuses(n), Failures: p.c.Failures[n], Wishes: int(p.wishes(n)), Tasks: p.c.Count[n], Load: n.Load(),
		req: p.req, order: p.key(n)}
	b := p.root
	for _, key := range p.req.Preferences {
		b = b.descend(key, n)
		j.Shares = append(j.Shares, Share{key, b.value, b.tasks})
	}
	return j
}

// compare is the rule of preference.
func (j Judgement) compare(o Judgement) int {
	if j.Passes() != o.Passes() {
		if j.Passes() {
			return -1
		}
		return 1
	}
	if j.Passes() {
		for i := range j.Shares {
			if d := cmp.Compare(j.Shares[i].Tasks, o.Shares[i].Tasks); d != 0 {
				return d
			}
		}
		if d := cmp.Compare(j.order.rank, o.order.rank); d != 0 {
			return d
		}
	}
	return cmp.Compare(j.order.ord, o.order.ord)
}

// figures are what is reserved and what there is, of the resources that the request needs.
func (r *Request) figures(n *Node) (out []string) {
	need := amountOf(r.Need)
	if need.CPUs > 0 {
		out = append(out, fmt.Sprintf("%s of %s processors reserved", decimal(n.Used.CPUs), decimal(n.Have.CPUs)))
	}
	if need.Memory > 0 {
		out = append(out, fmt.Sprintf("%s of %s of memory reserved", Bytes(n.Used.Memory), Bytes(n.Have.Memory)))
	}
	if need.PIDs > 0 && n.Have.PIDs > 0 {
		out = append(out, fmt.Sprintf("%d of %d processes reserved", n.Used.PIDs, n.Have.PIDs))
	}
	if need.Disk > 0 {
		out = append(out, fmt.Sprintf("%s of %s of disk reserved", Bytes(n.Used.Disk), Bytes(n.Have.Disk)))
	}
	for _, g := range r.Need.GetGeneric() {
		if p := n.pieces[g.GetKind()]; p != nil {
			out = append(out, fmt.Sprintf("%d of %d %s reserved", p.used, p.have, g.GetKind()))
		}
	}
	return out
}

// Ranking is the rule of preference in words.
func (r *Request) Ranking() string {
	out := ""
	for _, key := range r.Preferences {
		out += "the value of " + key + " with fewest tasks of the service, "
	}
	out += fmt.Sprintf("fewer than %d failures of this spec in 5 minutes, fewest unmet wishes, ", manyFailures)
	if isBinpack(r) {
		return out + "highest load (binpack), id"
	}
	return out + "fewest tasks of the service, least load (spread), id"
}
