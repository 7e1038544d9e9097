// Package preempt says who makes room for whom: which tasks of a lower priority leave a node so that one
// of a higher priority fits there.
//
// It owns the choice of the node and of the victims; it displaces nobody itself. It is pure: what it tries on a node it takes
// back.
package preempt

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// Displaced begins the reason of a task that made room. The words are how a later decision knows that it did not end by
// itself.
const Displaced = "displaced by "

// named is the number of tasks that a reason names.
const named = 3

// Room is a place on a node once others are gone.
type Room struct {
	Node *place.Node
	// Victims are to be displaced, Leaving are stopping already.
	Victims, Leaving []*typesv1.Task
	// Reserved is what the task will hold there.
	Reserved *typesv1.Resources
}

// Free reports whether nobody has to stop first: no victim has been there for longer than this decision.
func (r Room) Free(settled func(t *typesv1.Task) bool) bool {
	return len(r.Leaving) == 0 && !slices.ContainsFunc(r.Victims, settled)
}

// Waits is the reason of the task that is to have the place.
func (r Room) Waits(service func(id string) *typesv1.Service) string {
	var names []string
	tasks := r.Victims
	if len(tasks) == 0 {
		tasks = r.Leaving
	}
	for _, t := range tasks {
		names = append(names, state.TaskName(service(t.GetServiceId()), t))
	}
	slices.Sort(names)
	more := ""
	if len(names) > named {
		more, names = fmt.Sprintf(" and %d more", len(names)-named), names[:named]
	}
	return "waits for the place of " + strings.Join(names, ", ") + more
}
