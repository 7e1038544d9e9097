package decide_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// An older scheduler may lead while others are newer, and people use what only those know. It must do no harm: what it does not
// know it keeps, and what it cannot do right it leaves to them.

// foreign gives a message a field that this build does not know.
func foreign(m proto.Message) {
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 5000, protowire.VarintType), 7))
}

// changeService makes a changed copy of a service.
func (m *sim) changeService(id string, f func(s *typesv1.Service)) {
	s := proto.CloneOf(m.s.Service(id))
	f(s)
	m.change(state.Wrap(s))
}

// TestNewerFieldsAreKept: whatever an older scheduler does with a task or a status, what a newer one has written beside stays.
func TestNewerFieldsAreKept(t *testing.T) {
	m := newSim(t)
	for _, words := range [][]string{{"node", "a", "stamp=true"}, {"node", "b", "stamp=true"}, {"service", "web", "replicas=4"},
		{"service", "job", "mode=job", "completions=3", "concurrent=1"}} {
		m.command(nil, words)
	}
	m.converge(m.now)
	m.command(nil, []string{"service", "web", "image=v2", "monitor=5s", "order=start-first"})
	m.decide()
	marked := map[string]bool{}
	for _, task := range slices.Collect(m.s.Tasks()) {
		task = proto.CloneOf(task)
		foreign(task.GetDecided())
		marked[task.GetMeta().GetId()] = true
		m.change(state.Wrap(task))
	}
	m.changeService("web", func(s *typesv1.Service) { foreign(s); foreign(s.GetUpdateStatus()) })
	m.changeService("job", func(s *typesv1.Service) { foreign(s.GetJobStatus()) })
	before := m.s
	m.observe(m.slot("job", 1)[0], typesv1.TaskState_TASK_STATE_COMPLETE, nil, "")
	m.command(nil, []string{"node", "b", "down", "stamp=true"})
	m.converge(m.now.Add(10 * time.Second))
	m.command(nil, []string{"node", "b", "ready", "stamp=true"})
	m.converge(m.now.Add(time.Minute))
	changed := 0
	for id := range marked {
		task := m.s.Task(id)
		if task == nil {
			continue
		}
		if !proto.Equal(task.GetDecided(), before.Task(id).GetDecided()) {
			changed++
		}
		if !state.Newer(task.GetDecided()) {
			t.Errorf("%s has lost what a newer scheduler has decided", m.taskName(task))
		}
	}
	if web := m.s.Service("web"); !state.Newer(web) || !state.Newer(web.GetUpdateStatus()) || !state.Newer(m.s.Service("job").GetJobStatus()) {
		t.Error("a service has lost what a newer scheduler knows of it")
	}
	if changed < 4 {
		t.Errorf("only %d of the marked tasks have changed: nothing is shown", changed)
	}
}

// TestNewerModeIsLeftAlone: the tasks of a service of an unknown mode are not touched, whatever becomes of nodes and of the spec,
// and what they hold is not given away.
func TestNewerModeIsLeftAlone(t *testing.T) {
	m := newSim(t)
	m.command(nil, []string{"node", "a", "memory=4G"})
	m.command(nil, []string{"node", "b", "memory=4G"})
	m.command(nil, []string{"service", "odd", "replicas=3", "memory=1G", "min=1", "max=3", "cpu-target=50", "rebalance=always"})
	m.converge(m.now)
	m.changeService("odd", func(s *typesv1.Service) {
		s.Spec.Mode = nil
		foreign(s.GetSpec())
		s.SpecVersion++
		s.SpecHistory = []*typesv1.SpecRecord{{Version: 1, Task: s.GetSpec().GetTask()}}
	})
	tell := func() (out []string) {
		for task := range m.s.TasksOfService("odd") {
			out = append(out, task.GetMeta().GetId()+" "+task.GetDecided().String())
		}
		return out
	}
	was, status := tell(), m.s.Service("odd")
	m.observe(m.slot("odd", 1)[0], typesv1.TaskState_TASK_STATE_FAILED, nil, "")
	for _, words := range [][]string{{"node", "b", "drain"}, {"node", "b", "down", "active"}, {"node", "b", "ready"}} {
		m.command(nil, words)
		m.converge(m.now.Add(time.Hour))
		if is := tell(); !slices.Equal(is, was) {
			t.Fatalf("after %v\n%s\nbefore\n%s", words, strings.Join(is, "\n"), strings.Join(was, "\n"))
		}
	}
	if !proto.Equal(m.s.Service("odd"), status) {
		t.Errorf("the service has become %v", m.s.Service("odd"))
	}
	m.command(nil, []string{"service", "big", "replicas=3", "memory=3G"})
	m.decide()
	if m.slot("big", 3)[0].GetDecided().GetNodeId() != "" {
		t.Errorf("three tasks of 3 GiB have a place beside two of 1 GiB that run: %v", m.spread("big"))
	}
}

// TestNewerRulesAreNotBroken: a spec with a rule of placement, or a need, that is not known is placed by nobody else: new tasks wait
// and say so, those that run go on, and nobody has to make room.
func TestNewerRulesAreNotBroken(t *testing.T) {
	for name, mark := range map[string]func(s *typesv1.TaskSpec){
		"placement": func(s *typesv1.TaskSpec) { foreign(s.GetPlacement()) },
		"need":      func(s *typesv1.TaskSpec) { foreign(s.GetResources().GetReservations()) },
		"resources": func(s *typesv1.TaskSpec) { foreign(s.GetResources()) },
		"affinity":  func(s *typesv1.TaskSpec) { foreign(s.GetPlacement().GetAffinities()[0]) },
		"tolerance": func(s *typesv1.TaskSpec) { foreign(s.GetPlacement().GetTolerations()[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newSim(t)
			m.command(nil, []string{"cluster", "preemption=on"})
			m.command(nil, []string{"node", "a", "memory=4G"})
			m.command(nil, []string{"service", "low", "replicas=1", "memory=2G", "priority=-5"})
			m.command(nil, []string{"service", "web", "replicas=2", "memory=1G", "rather-far=x", "tolerate=x"})
			m.converge(m.now)
			was := m.slot("web", 1)[0].GetDecided()
			m.command(nil, []string{"service", "web", "memory=1G", "rather-far=x", "tolerate=x", "image=v2", "parallelism=0"})
			m.changeService("web", func(s *typesv1.Service) { mark(s.GetSpec().GetTask()) })
			m.command(nil, []string{"scale", "web=3"})
			m.converge(m.now)
			if is := m.slot("web", 1)[0].GetDecided(); !proto.Equal(is, was) {
				t.Errorf("what ran has become %v", is)
			}
			d := m.slot("web", 3)[0].GetDecided()
			if d.GetNodeId() != "" || !strings.Contains(d.GetReason(), "this version of the scheduler does not know") {
				t.Errorf("a new task has %v", d)
			}
			if low := m.slot("low", 1)[0]; low.GetDecided().GetDesired() != typesv1.TaskState_TASK_STATE_RUNNING {
				t.Errorf("%s had to make room", m.taskName(low))
			}
		})
	}
}

// TestNewerTargetIsNotMissed: a service that scales by a figure that is not known keeps its number.
func TestNewerTargetIsNotMissed(t *testing.T) {
	m := newSim(t)
	m.command(nil, []string{"node", "a", "cpus=64"})
	m.command(nil, []string{"service", "web", "replicas=5", "min=1", "max=9", "cpus=1", "cpu-target=50", "down=0s"})
	m.converge(m.now)
	m.changeService("web", func(s *typesv1.Service) { foreign(s.GetSpec().GetAutoscale()) })
	m.now = m.now.Add(time.Minute)
	m.command(nil, []string{"load", "web", "tasks=5", "cpu=0"})
	m.converge(m.now.Add(time.Hour))
	if running, want := state.Counts(m.s, "web"); running != 5 || want != 5 {
		t.Errorf("%d of %d run", running, want)
	}
}
