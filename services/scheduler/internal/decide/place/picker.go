package place

import "time"

// Cluster is what a Picker needs to know beside the request. All of it may change between two picks, but for Nodes.
type Cluster struct {
	Now   time.Time
	Nodes []*Node // in the order of ids
	// Count is the number of the service's wanted tasks on a node; Failures how often its spec failed there lately.
	Count    map[*Node]int
	Failures map[*Node]int
	// Neighbours are the other tasks that affinities of the request count, by affinity: the number on each node.
	Neighbours []map[*Node]int
	// Order lets nodes be chosen without looking at all. Nil: always look at all.
	Order Order
}

// Order is what somebody keeps of the nodes from one pick to the next.
type Order interface {
	// ByLoad walks the nodes in the order of Load and then of ids, at least those that are eligible.
	ByLoad(req *Request, yield func(*Node) bool)
	// Least is a number of the service's tasks that no node has fewer of.
	Least() int
}

// Picker chooses one node after another for tasks of one request. After each change of a node's figures it must be told.
type Picker struct {
	req  *Request
	c    Cluster
	near []neighbourhood
	root *branch // nil: nobody has looked at all nodes yet
	walk walk
	// hopeless is why no node fits, until something changes.
	hopeless string
}

// NewPicker makes a picker, in the memory of one that nobody needs any more if there is any.
func NewPicker(req *Request, c Cluster, old *Picker) *Picker {
	p := old
	if p == nil {
		p = &Picker{}
		p.walk.step = p.pass
	}
	*p = Picker{req: req, c: c, walk: walk{step: p.walk.step}}
	for i, a := range req.Affinities {
		p.near = append(p.near, newNeighbourhood(a, c.Neighbours[i]))
	}
	return p
}

// look looks at each node once.
func (p *Picker) look() {
	p.root = &branch{}
	if len(p.req.Preferences) == 0 {
		p.root.entries = make([]entry, 0, len(p.c.Nodes))
	} else {
		for n, count := range p.c.Count {
			if !n.Down() {
				p.root.count(p.req.Preferences, n, count)
			}
		}
	}
	for _, n := range p.c.Nodes {
		if p.Refuses(n) == None {
			leaf := p.root.leaf(p.req.Preferences, n)
			leaf.entries = append(leaf.entries, p.key(n))
		}
	}
}

// walks reports whether the order by load is that of the request, apart from how many tasks of the service a node has, and
// whether walks still cost less than one look at all nodes.
func (p *Picker) walks() bool {
	return p.c.Order != nil && p.walk.passed <= len(p.c.Nodes) && len(p.req.Preferences) == 0 && len(p.near) == 0 && !isBinpack(p.req)
}

// walk is the search for the best node in the order of load. It is kept from one search to the next, to cost no memory.
type walk struct {
	passed int // nodes, by all searches
	least  uint64
	best   entry
	ok     bool
	step   func(n *Node) bool // pass
}

// find finds the best node in the order of load: the first that fits and has no more tasks of the service than any must
// have, if its spec has not failed there; else the best of all.
func (p *Picker) find() (best entry, ok bool) {
	w := &p.walk
	w.least, w.best, w.ok = uint64(min(p.c.Order.Least(), 1<<20-1)), entry{}, false
	p.c.Order.ByLoad(p.req, w.step)
	return w.best, w.ok
}

// pass looks at one node of a walk. It reports whether a later one may be better.
func (p *Picker) pass(n *Node) bool {
	w := &p.walk
	w.passed++
	if p.Refuses(n) != None {
		return true
	}
	if e := p.key(n); !w.ok || e.less(w.best) {
		w.best, w.ok = e, true
	}
	return w.best.rank>>32 > w.least // failures, or more tasks than the least
}

// Refuses is the first filter that does not let the node pass.
func (p *Picker) Refuses(n *Node) Cause {
	if c := p.shuts(n); c != None {
		return c
	}
	if c := p.req.Fits(n, p.c.Count[n]); c != None {
		return c
	}
	return p.strays(n)
}

// Forbids is the first filter that would not let the node pass even if nothing was on it.
func (p *Picker) Forbids(n *Node) Cause {
	if c := p.shuts(n); c != None {
		return c
	}
	return p.strays(n)
}

func (p *Picker) shuts(n *Node) Cause {
	if n.Closed != None {
		return n.Closed
	}
	if n.Hold.After(p.c.Now) {
		return Held
	}
	return p.req.Eligible(n)
}

func (p *Picker) strays(n *Node) Cause {
	for _, a := range p.near {
		if !a.preferred && !a.holds(n) {
			return Affinity
		}
	}
	return None
}

// Best is the best node of those that fit, nil with the reason if none does.
func (p *Picker) Best() (*Node, string) {
	if p.hopeless != "" {
		return nil, p.hopeless
	}
	var e entry
	var ok bool
	if p.root == nil && p.walks() {
		e, ok = p.find()
	} else {
		if p.root == nil {
			p.look()
		}
		e, ok = p.root.best(p)
	}
	if ok {
		return e.node, ""
	}
	p.hopeless = p.req.Explain(p.c.Nodes, p.Refuses)
	return nil, p.hopeless
}

// Changed tells that a node's figures have changed, and by how many tasks of the service.
func (p *Picker) Changed(n *Node, tasks int) {
	p.hopeless = ""
	for i := range p.near {
		p.near[i].add(n, tasks)
	}
	if p.root == nil {
		return
	}
	leaf := p.root
	if len(p.req.Preferences) > 0 {
		if tasks != 0 && !n.Down() {
			p.root.count(p.req.Preferences, n, tasks)
		}
		leaf = p.root.leaf(p.req.Preferences, n)
	}
	if len(leaf.entries) > 0 && leaf.entries[0].node == n {
		leaf.settle(p)
	} else if p.Refuses(n) == None {
		leaf.push(p.key(n))
	}
}

// entry is a node with the order that it had when it was looked at. An order that is out of date is found out when the
// entry comes to the top.
type entry struct {
	rank, ord uint64
	node      *Node
}

func (e entry) less(o entry) bool { return e.rank < o.rank || e.rank == o.rank && e.ord < o.ord }

const (
	// manyFailures of one spec in the window put a node behind all others.
	manyFailures = 5
	// taskWeight is what a task weighs beside its reservations, in thousandths of a machine: nodes without reservations are
	// filled by number.
	taskWeight = 10
)

// key is the rule of preference, packed into numbers. Spread: nodes where this spec has not failed again and again, then
// what is only wished for (taints, affinities), then fewest tasks of the service, then least load, then the order of ids.
// Binpack: highest load first, whatever the service has there.
func (p *Picker) key(n *Node) entry {
	var tier, count uint64
	if f := p.c.Failures[n]; f >= manyFailures {
		tier = uint64(min(f, 255)) << 4
	}
	tier += p.wishes(n)
	load := n.Load()
	if isBinpack(p.req) {
		load = 1<<32 - 1 - load
	} else {
		count = uint64(min(p.c.Count[n], 1<<20-1))
	}
	return entry{rank: tier<<52 | count<<32 | load, ord: uint64(n.Ord), node: n}
}

// Welcome reports whether a node takes one more task and nothing speaks against it: no failure, no wish that it does not
// grant.
func (p *Picker) Welcome(n *Node) bool { return p.Refuses(n) == None && p.key(n).rank>>52 == 0 }

// wishes counts what the node does not grant of what is only preferred.
func (p *Picker) wishes(n *Node) (out uint64) {
	if len(n.Object.GetSpec().GetTaints()) > 0 && p.req.taint(n, preferNoSchedule) {
		out++
	}
	for _, a := range p.near {
		if a.preferred && !a.holds(n) {
			out++
		}
	}
	return min(out, 15)
}

// Load is how full a node is: the share of processors, memory or disk that is reserved, the largest, in thousandths, and a little
// for each task.
func (n *Node) Load() uint64 {
	reserved := max(share(n.Used.CPUs, n.Have.CPUs), share(n.Used.Memory, n.Have.Memory), share(n.Used.Disk, n.Have.Disk))
	return uint64(min(reserved+int64(max(n.Tasks, 0))*taskWeight, 1<<31))
}

// Weight is what one task of the request adds to the load of a node.
func (r *Request) Weight(n *Node) uint64 {
	reserved := max(share(r.Need.GetNanoCpus(), n.Have.CPUs), share(r.Need.GetMemoryBytes(), n.Have.Memory), share(r.Need.GetDiskBytes(), n.Have.Disk))
	return uint64(reserved) + taskWeight
}

func share(used, have int64) int64 {
	switch {
	case used <= 0:
		return 0
	case have <= 0 || used >= have:
		return 1000
	case used > 1<<50: // more than a petabyte: no overflow
		return used / (have / 1000)
	}
	return used * 1000 / have
}
