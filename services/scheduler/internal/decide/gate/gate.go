// Package gate tells whether the services that another depends on are healthy.
//
// It owns what healthy means here, and the words for what is missing. It is pure. Whose tasks wait, and for how long, is
// package visit's.
package gate

import (
	"fmt"
	"strings"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

// named is how many services are named that are waited for; the others are counted.
const named = 3

// Waits says for which services, by name, there is to be waited; nothing if all are healthy. Lost tells of a task whose node
// is down.
func Waits(b *book.Book, services []string, lost func(*typesv1.Task) bool) string {
	var out []string
	more := 0
	for _, name := range services {
		why := missing(b, name, lost)
		switch {
		case why == "":
		case len(out) == named:
			more++
		default:
			out = append(out, "service "+name+": "+why)
		}
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("%d more", more))
	}
	if len(out) == 0 {
		return ""
	}
	return "waits for " + strings.Join(out, ", ")
}

// missing is what a service lacks to be healthy: a job, its completions; any other, a task in each slot that is running and
// ready. A service that is to have no task is not healthy: nobody would answer.
func missing(b *book.Book, name string, lost func(*typesv1.Task) bool) string {
	svc := b.Snapshot.ServiceByName(name)
	if svc == nil {
		return "there is none"
	}
	g := b.Group(svc.GetMeta().GetId())
	if state.IsJob(svc) {
		return unfinished(g)
	}
	ready, want := 0, 0
	for _, s := range g.Slots {
		if !task.AnyWanted(s) {
			continue
		}
		want++
		for _, t := range s.Tasks {
			if task.Wanted(t) && task.Runs(t) && t.GetObserved().GetReady() && !lost(t) {
				ready++
				break
			}
		}
	}
	if !g.PerNode() {
		want = int(state.Replicas(g.Service)) // as this decision has left it
	}
	if want > 0 && ready >= want {
		return ""
	}
	return fmt.Sprintf("%d of %d ready", ready, want)
}

// unfinished is empty when a job's newest spec has been run to the end.
func unfinished(g *book.Group) string {
	st := g.Service.GetJobStatus()
	if st.GetSpecVersion() != g.Service.GetSpecVersion() {
		return "not begun"
	}
	switch st.GetState() {
	case typesv1.JobState_JOB_STATE_COMPLETED:
		return ""
	case typesv1.JobState_JOB_STATE_FAILED:
		return "failed"
	case typesv1.JobState_JOB_STATE_WAITING:
		return "not begun"
	default:
		return "not complete"
	}
}
