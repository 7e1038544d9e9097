package book

import "container/heap"

// line is groups in the order of their turns. Those that come in that order, as all do at the beginning, stand in a row, which costs
// next to nothing; the others are in a heap.
type line struct {
	row   []stand
	stood uint64 // numbers given
	late  queue
}

// stand is a group's place in the row, as long as the group has the number.
type stand struct {
	group  *Group
	number uint64
}

func (s stand) left() bool { return s.group.stand != s.number }

func (l *line) add(g *Group) {
	if g.stand != 0 || g.listed != 0 {
		return
	}
	if last := len(l.row) - 1; last >= 0 && (l.row[last].left() || !Before(l.row[last].group, g)) {
		l.late.add(g)
		return
	}
	l.stood++
	g.stand = l.stood
	l.row = append(l.row, stand{g, g.stand})
}

func (l *line) remove(g *Group) {
	g.stand = 0
	l.late.remove(g)
}

// moved puts a group right whose order has changed.
func (l *line) moved(g *Group) {
	if g.stand != 0 {
		g.stand = 0
		l.late.add(g)
		return
	}
	l.late.moved(g)
}

// first is nil if there is none.
func (l *line) first() *Group {
	for len(l.row) > 0 && l.row[0].left() {
		l.row = l.row[1:]
	}
	late := l.late.first()
	switch {
	case len(l.row) == 0:
		l.row = nil // what it lay in goes too
		return late
	case late == nil || Before(l.row[0].group, late):
		return l.row[0].group
	}
	return late
}

// queue is a heap of groups, each of which knows its place in it, from 1; 0 is none.
type queue struct {
	groups []*Group
	place  func(g *Group) *int
	before func(a, b *Group) bool
}

func (q *queue) add(g *Group) {
	if *q.place(g) == 0 {
		heap.Push((*tree)(q), g)
	}
}

func (q *queue) remove(g *Group) {
	if at := *q.place(g); at > 0 {
		heap.Remove((*tree)(q), at-1)
	}
}

func (q *queue) moved(g *Group) {
	if at := *q.place(g); at > 0 {
		heap.Fix((*tree)(q), at-1)
	}
}

func (q *queue) first() *Group {
	if len(q.groups) == 0 {
		return nil
	}
	return q.groups[0]
}

// tree is a queue as the heap sees it.
type tree queue

func (t *tree) Len() int           { return len(t.groups) }
func (t *tree) Less(i, j int) bool { return t.before(t.groups[i], t.groups[j]) }

func (t *tree) Swap(i, j int) {
	t.groups[i], t.groups[j] = t.groups[j], t.groups[i]
	*t.place(t.groups[i]), *t.place(t.groups[j]) = i+1, j+1
}

func (t *tree) Push(x any) {
	if g, ok := x.(*Group); ok {
		t.groups = append(t.groups, g)
		*t.place(g) = len(t.groups)
	}
}

func (t *tree) Pop() any {
	last := len(t.groups) - 1
	g := t.groups[last]
	t.groups[last], t.groups = nil, t.groups[:last]
	*t.place(g) = 0
	return g
}
