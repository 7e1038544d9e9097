package place

import (
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// One is the task that a person means: by its id, a unique prefix of it, or `<service>.<slot>`, where the newest task of
// the slot is meant. A service's name alone means its one task that runs.
func One(s *state.Snapshot, target string) (*typesv1.Task, error) {
	tasks, err := find(s, target)
	if err != nil {
		return nil, err
	}
	if len(tasks) == 1 {
		return tasks[0], nil
	}
	slots := map[string]*typesv1.Task{}
	for _, t := range tasks {
		name := NameOf(s, t)
		if slots[name] == nil || newer(t, slots[name]) {
			slots[name] = t
		}
	}
	if len(slots) == 1 {
		for _, t := range slots {
			return t, nil
		}
	}
	var live []*typesv1.Task
	for _, t := range slots {
		if t.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_RUNNING {
			live = append(live, t)
		}
	}
	if len(live) == 1 {
		return live[0], nil
	}
	return nil, errs.New(errs.Invalid, "%q has %d running tasks; name one, as in %s.1", target, len(live), target)
}

// newer: one that runs before one that does not, then by age.
func newer(a, b *typesv1.Task) bool {
	if ra, rb := runs(a), runs(b); ra != rb {
		return ra
	}
	return a.GetMeta().GetCreatedAt().AsTime().After(b.GetMeta().GetCreatedAt().AsTime())
}

func runs(t *typesv1.Task) bool {
	return t.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_RUNNING
}

// find is every task that a target names.
func find(s *state.Snapshot, target string) ([]*typesv1.Task, error) {
	if target == "" || len(target) > maxTarget {
		return nil, errs.New(errs.Invalid, "a target must have 1 to %d characters", maxTarget)
	}
	if t := s.Task(target); t != nil {
		return []*typesv1.Task{t}, nil
	}
	if svc := service(s, target); svc != nil {
		return collect(s.TasksOfService(svc.GetMeta().GetId())), nil
	}
	if name, slot, ok := cutLast(target, "."); ok {
		if svc := service(s, name); svc != nil {
			return ofSlot(s, svc, slot)
		}
	}
	return byPrefix(s, target)
}

// single is the id of the task that a target names as such; empty if it names a service or a slot, which may have others.
func single(s *state.Snapshot, target string) string {
	if s.Task(target) != nil {
		return target
	}
	if service(s, target) != nil {
		return ""
	}
	if name, _, dotted := cutLast(target, "."); dotted && service(s, name) != nil {
		return ""
	}
	if found, err := byPrefix(s, target); err == nil {
		return found[0].GetMeta().GetId()
	}
	return ""
}

func cutLast(text, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(sep):], true
}

func service(s *state.Snapshot, name string) *typesv1.Service {
	if svc := s.ServiceByName(name); svc != nil {
		return svc
	}
	return s.Service(name)
}

// ofSlot takes a slot's number, or of a global service the id or hostname of a machine.
func ofSlot(s *state.Snapshot, svc *typesv1.Service, slot string) ([]*typesv1.Task, error) {
	var out []*typesv1.Task
	if n, err := strconv.ParseUint(slot, 10, 64); err == nil && n > 0 {
		out = collect(s.TasksOfSlot(svc.GetMeta().GetId(), n))
	}
	for t := range s.TasksOfService(svc.GetMeta().GetId()) {
		if node := t.GetDecided().GetForNode(); node != "" && (node == slot || state.Hostname(s.Node(node)) == slot) {
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return nil, errs.New(errs.NotFound, "service %q has no task %q", svc.GetSpec().GetAnnotations().GetName(), slot)
	}
	return out, nil
}

func byPrefix(s *state.Snapshot, target string) ([]*typesv1.Task, error) {
	// "web.1.3k9x…" is how log lines call a task.
	name, prefix, dotted := cutLast(target, ".")
	if !dotted {
		prefix = target
	}
	var found []*typesv1.Task
	if prefix != "" {
		for t := range s.Tasks() {
			if strings.HasPrefix(t.GetMeta().GetId(), prefix) && (!dotted || NameOf(s, t) == name) {
				found = append(found, t)
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, errs.New(errs.NotFound, "no such service or task: %s", target)
	case 1:
		return found, nil
	}
	return nil, errs.New(errs.Invalid, "task %s is ambiguous: %d ids begin so; give more of it", target, len(found))
}

func collect(tasks iter.Seq[*typesv1.Task]) []*typesv1.Task {
	var out []*typesv1.Task
	for t := range tasks {
		out = append(out, t)
	}
	return out
}

// NameOf is "web.1", or "web.NODE" where each node has a task; when the service is gone its id stands for the name.
func NameOf(s *state.Snapshot, t *typesv1.Task) string {
	name := s.Service(t.GetServiceId()).GetSpec().GetAnnotations().GetName()
	if name == "" {
		name = t.GetServiceId()
	}
	if node := t.GetDecided().GetForNode(); node != "" {
		return name + "." + node
	}
	return fmt.Sprintf("%s.%d", name, t.GetDecided().GetSlot())
}

// Node is the node that a person means, by id or by a hostname that it alone has, if it can be asked.
func Node(s *state.Snapshot, ref string) (*typesv1.Node, error) {
	n := s.Node(ref)
	if same := s.NodesByHostname(ref); n == nil && len(same) > 0 {
		if len(same) > 1 {
			return nil, errs.New(errs.Invalid, "node %s is ambiguous: %d machines have that hostname; use the id", ref, len(same))
		}
		n = same[0]
	}
	switch {
	case n == nil:
		return nil, errs.New(errs.NotFound, "no such node: %.100s", ref)
	case n.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_DOWN:
		return nil, errs.New(errs.Unavailable, "node %s is down", state.Hostname(n))
	case n.GetStatus().GetSession().GetDispatcherId() == "":
		return nil, errs.New(errs.Unavailable, "node %s has no session yet", state.Hostname(n))
	}
	return n, nil
}
