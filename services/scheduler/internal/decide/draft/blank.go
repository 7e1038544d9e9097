package draft

import (
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Blank is a task to be made, with all that it needs to be written, in one piece of memory.
type Blank struct {
	Task    typesv1.Task
	Decided typesv1.TaskDecided

	meta   typesv1.Meta
	kind   typesv1.Object_Task
	object typesv1.Object
	put    storev1.Put
}

// mostBlanks bounds the tasks that share one piece of memory: who keeps one of them keeps them all.
const mostBlanks = 32

// Blank is a task of a service and a spec version, with a new id and nothing decided. It is no part of the decision before NewTask.
func (d *Draft) Blank(service string, version uint64) *Blank {
	if len(d.blanks) == 0 {
		d.chunk = min(max(2*d.chunk, 1), mostBlanks)
		d.blanks = make([]Blank, d.chunk)
	}
	b := &d.blanks[0]
	d.blanks = d.blanks[1:]
	b.meta.Id = d.NewID()
	b.Task.Meta, b.Task.ServiceId, b.Task.SpecVersion, b.Task.Decided = &b.meta, service, version, &b.Decided
	b.kind.Task, b.object.Kind, b.put.Object = &b.Task, &b.kind, &b.object
	return b
}
