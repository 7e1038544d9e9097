package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func nodeNamed(s *state.Snapshot, host string) *typesv1.Node {
	if all := s.NodesByHostname(host); len(all) > 0 {
		return all[0]
	}
	return nil
}

// tasksOf are a service's tasks that are wanted to run, or all.
func tasksOf(s *state.Snapshot, service string, live bool) []*typesv1.Task {
	var out []*typesv1.Task
	for t := range s.TasksOfService(s.ServiceByName(service).GetMeta().GetId()) {
		if !live || state.DesiredState(t) <= typesv1.TaskState_TASK_STATE_RUNNING && !state.Terminal(t.GetObserved().GetState()) {
			out = append(out, t)
		}
	}
	return out
}

// runningOf are those that are wanted to run, and do.
func runningOf(s *state.Snapshot, service string) []*typesv1.Task {
	return slices.DeleteFunc(tasksOf(s, service, true), func(t *typesv1.Task) bool {
		return t.GetObserved().GetState() != typesv1.TaskState_TASK_STATE_RUNNING ||
			s.Node(t.GetDecided().GetNodeId()).GetStatus().GetState() == typesv1.NodeState_NODE_STATE_DOWN
	})
}

// tagOf is the tag of the image that a task is of.
func tagOf(s *state.Snapshot, t *typesv1.Task) string {
	image, _, _ := strings.Cut(state.SpecOf(s.Service(t.GetServiceId()), t.GetSpecVersion()).GetContainer().GetImage(), "@")
	return image[strings.LastIndex(image, ":")+1:]
}

// whole says what is wrong until a service has n running tasks and none that is on its way.
func whole(service string, n int) func(*state.Snapshot) string {
	return func(s *state.Snapshot) string {
		running, live := len(runningOf(s, service)), len(tasksOf(s, service, true))
		if running == n && live == n && s.ServiceByName(service) != nil {
			return ""
		}
		why := ""
		for _, t := range tasksOf(s, service, false) {
			if r := state.TaskReason(t, s.Node(t.GetDecided().GetNodeId())); r != "" && !strings.Contains(why, r) {
				why += "; " + r
			}
		}
		return fmt.Sprintf("%d running of %d%s", running, live, why)
	}
}

// full waits for it.
func (c *cluster) full(service string, n int) *state.Snapshot {
	c.t.Helper()
	return c.sees(fmt.Sprintf("%d tasks of %s run", n, service), 60*time.Second, whole(service, n))
}

// standing are the running tasks of a service with all that would differ if one had been touched: id, container, process.
func standing(s *state.Snapshot, service string) map[string]string {
	out := map[string]string{}
	for _, t := range runningOf(s, service) {
		o := t.GetObserved()
		out[t.GetMeta().GetId()] = fmt.Sprintf("%s on %s, pid %d", o.GetContainerId(), state.Hostname(s.Node(t.GetDecided().GetNodeId())), o.GetPid())
	}
	return out
}

// byHost are a service's running tasks by host.
func byHost(s *state.Snapshot, service string) map[string]int {
	out := map[string]int{}
	for _, t := range runningOf(s, service) {
		out[state.Hostname(s.Node(t.GetDecided().GetNodeId()))]++
	}
	return out
}

// are waits until a service's running tasks are on the hosts as they should be, and no other is wanted.
func (c *cluster) are(service string, want map[string]int) *state.Snapshot {
	c.t.Helper()
	n := 0
	for _, k := range want {
		n += k
	}
	return c.sees(fmt.Sprintf("%s runs on %v", service, want), 60*time.Second, func(s *state.Snapshot) string {
		if got := byHost(s, service); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Sprint(got)
		}
		return whole(service, n)(s)
	})
}

// waits waits until a task of a service that does not run says why.
func (c *cluster) waits(service, why string) {
	c.t.Helper()
	c.sees("a task of "+service+" says why it waits", 60*time.Second, func(s *state.Snapshot) string {
		said := ""
		for _, t := range tasksOf(s, service, true) {
			if t.GetObserved().GetState() != typesv1.TaskState_TASK_STATE_RUNNING {
				said += state.TaskReason(t, s.Node(t.GetDecided().GetNodeId())) + "; "
			}
		}
		if !strings.Contains(said, why) {
			return "it says " + said
		}
		return ""
	})
	if rows := c.tasks(service, false); !slices.ContainsFunc(rows, func(r taskRow) bool { return strings.Contains(r.Error, why) }) {
		c.t.Errorf("service ps does not say %q: %+v", why, rows)
	}
}
