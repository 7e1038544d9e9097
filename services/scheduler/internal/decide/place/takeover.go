package place

// BestAfter is Best for a task that takes over from another of its service on a node: the other counts no more for the order, for
// it will be gone. Or the nodes that are asked first in an update would have one too many in the end. What it holds there it
// holds until then. Nil: from none.
func (p *Picker) BestAfter(from *Node) (*Node, string) {
	if from == nil || from.Down() || isBinpack(p.req) || p.c.Count[from] == 0 {
		return p.Best()
	}
	preferences := p.req.Preferences
	if len(preferences) > 0 {
		if p.root == nil {
			p.look()
		}
		p.root.count(preferences, from, -1)
		defer p.root.count(preferences, from, 1)
	}
	best, why := p.Best()
	if best == nil || best == from || p.Refuses(from) != None {
		return best, why
	}
	if len(preferences) > 0 && p.root.leaf(preferences, best) != p.root.leaf(preferences, from) {
		return best, "" // of a share that has fewer
	}
	own := p.key(from)
	if own.rank -= 1 << 32; own.less(p.key(best)) {
		return from, ""
	}
	return best, ""
}
