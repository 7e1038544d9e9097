package decide_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestFloorHolds: while nothing fails, updates, rollbacks by hand, drains, rules that are enforced and moves for even load
// together never leave fewer slots with a running task than the floor allows, none fewer when the new task starts first, and
// never have more slots under way than the parallelism. An update that may take all slots at once lets nothing else do so.
// Beside them a service scales with its connections, and a job runs by its schedule, of which no two runs meet unless they
// may. At the end all is of the new spec. Agents do what they are told in any order and as slowly as they like.
func TestFloorHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, w := newSim(t), floorWatch{}
		pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
		for i := range rapid.IntRange(2, 5).Draw(t, "nodes") {
			m.command(nil, []string{"node", fmt.Sprintf("n%d", i), "label.ok=yes"})
		}
		volume := pick("volumes", "image=v1", "image=v1", "slot-volume=data")
		m.command(nil, []string{"service", "web", fmt.Sprintf("replicas=%d", rapid.IntRange(2, 8).Draw(t, "replicas")), volume})
		m.command(nil, []string{"service", "scaled", "min=1", "max=6", "connections-target=10", "down=10s"})
		cron := []string{"service", "cron", "mode=job", "cron=*_*_*_*_*", "completions=3", "concurrent=2",
			"policy=" + pick("policy", "forbid", "allow", "replace"), "catch-up=" + pick("catch-up", "0s", "90s")}
		m.command(nil, cron)
		m.converge(m.now)
		w.see(m)
		spec := []string{"service", "web", "image=v2", "parallelism=" + pick("parallelism", "0", "0", "1", "2", "3"), "delay=" + pick("delay", "0s", "3s"),
			"order=" + pick("order", "stop-first", "start-first"),
			pick("feature", "", "constraint=node.labels.ok_==_yes", "rebalance=always", "host-port=any", "prefer=node.labels.ok")}
		if volume != "image=v1" {
			spec = append(spec, volume)
		}
		if n := rapid.IntRange(0, 2).Draw(t, "max-unavailable"); n > 0 {
			spec = append(spec, fmt.Sprintf("max-unavailable=%d", n))
		}
		m.command(nil, spec)
		if rapid.Bool().Draw(t, "is updated at once") {
			m.converge(m.now)
			w.see(m)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			before := m.s
			if rapid.IntRange(0, 30).Draw(t, "goes back") == 0 {
				m.command(nil, append(spec, "rollback-to=1"))
			}
			if rapid.IntRange(0, 30).Draw(t, "scaled is updated") == 0 {
				m.command(nil, []string{"service", "scaled", "min=1", "max=6", "connections-target=10", "down=10s", "image=v2"})
			}
			drawQuietStep(t, m)
			m.checkFloor(t, w, before, "web")
			m.checkFloor(t, w, before, "scaled")
			m.checkRuns(t, cron)
			w.see(m)
		}
		m.delete(typesv1.Kind_KIND_SERVICE, "cron") // or it never ends
		m.command(nil, []string{"node", "n0", "active"})
		m.command(nil, []string{"node", "n1", "label.ok=yes"})
		m.converge(m.now.Add(time.Hour))
		m.checkConverged(t)
	})
}

// drawQuietStep lets one agent take a step, time pass, a node be drained (but one), connections come and go, or the scheduler
// decide.
func drawQuietStep(t *rapid.T, m *sim) {
	switch rapid.IntRange(0, 14).Draw(t, "step") {
	case 0:
		m.command(nil, []string{"node", "n0", rapid.SampledFrom([]string{"drain", "active"}).Draw(t, "availability")})
	case 11:
		m.command(nil, []string{"node", "n1", rapid.SampledFrom([]string{"label.ok=no", "label.ok=yes"}).Draw(t, "label")})
	case 10:
		m.command(nil, []string{"rebalance", fmt.Sprintf("web=%d", m.ids)})
	case 12:
		m.command(nil, []string{"load", "scaled", fmt.Sprintf("machines=%d", m.s.Count(typesv1.Kind_KIND_NODE)),
			fmt.Sprintf("connections=%d", rapid.IntRange(0, 80).Draw(t, "connections"))})
	case 13:
		m.now = m.now.Add(time.Duration(rapid.IntRange(1, 150).Draw(t, "seconds")) * time.Second)
	case 1, 2:
		m.now = m.now.Add(time.Duration(rapid.IntRange(1, 5_000).Draw(t, "ms")) * time.Millisecond)
	case 3, 4, 5, 6:
		var behind []*typesv1.Task
		for task := range m.s.Tasks() {
			if !state.Terminal(task.GetObserved().GetState()) && task.GetObserved().GetState() < told(task) {
				behind = append(behind, task)
			}
		}
		if len(behind) > 0 {
			task := rapid.SampledFrom(behind).Draw(t, "task")
			m.observe(task, told(task), nil, "")
		}
	default:
		m.decide()
	}
}

// told is what an agent makes of a task's desired state: one of a job that runs completes.
func told(t *typesv1.Task) typesv1.TaskState {
	switch d := t.GetDecided().GetDesired(); {
	case d > typesv1.TaskState_TASK_STATE_RUNNING:
		return typesv1.TaskState_TASK_STATE_SHUTDOWN
	case t.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_RUNNING && t.GetDecided().GetIteration() > 0:
		return typesv1.TaskState_TASK_STATE_COMPLETE
	default:
		return d
	}
}

// floorWatch knows the slots of each service that have had a running task since they are there, or since a drain has taken it from
// where their volume is.
type floorWatch map[string]map[uint64]bool

func (w floorWatch) see(m *sim) {
	for _, service := range []string{"web", "scaled"} {
		had := map[uint64]bool{}
		for n, s := range m.slotsOf(service) {
			if s.serves != nil || w[service][n] && !s.tied {
				had[n] = true
			}
		}
		w[service] = had
	}
}

// slotWatch is a slot that is wanted: the task that runs in it, and whether one is on its way.
type slotWatch struct {
	serves   *typesv1.Task
	underWay bool
	// tied says that it waits for a drained node, where its volume is.
	tied bool
}

func (m *sim) slotsOf(service string) map[uint64]slotWatch {
	out := map[uint64]slotWatch{}
	for task := range m.s.TasksOfService(service) {
		d := task.GetDecided()
		if d.GetDesired() > typesv1.TaskState_TASK_STATE_RUNNING {
			continue
		}
		s := out[d.GetSlot()]
		if task.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_RUNNING {
			s.serves = task
		} else {
			s.underWay = true
		}
		home := m.s.Node(m.s.Volume(state.SlotVolume(service, d.GetSlot(), "data")).GetNodeId())
		s.tied = s.tied || home.GetSpec().GetAvailability() == typesv1.Availability_AVAILABILITY_DRAIN
		out[d.GetSlot()] = s
	}
	return out
}

// checkFloor looks at what one decision has left of a service.
func (m *sim) checkFloor(t fatal, w floorWatch, before *state.Snapshot, service string) {
	svc := m.s.Service(service)
	spec, slots := svc.GetSpec(), m.slotsOf(service)
	limit := 1
	if p := spec.GetUpdate().Parallelism; p != nil {
		limit = int(*p)
	}
	atOnce := limit == 0 || limit >= int(state.Replicas(svc)) // of updates alone
	floor, moves := limit, limit
	if limit == 0 {
		floor = math.MaxInt
	}
	if atOnce {
		moves = 1
	}
	if n := spec.MaxUnavailable; n != nil {
		floor, moves = int(*n), int(*n)
	}
	startFirst := spec.GetUpdate().GetOrder() == typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST && len(state.SlotSources(spec.GetTask().GetContainer())) == 0
	if startFirst {
		floor, moves = 0, 0
	}
	missing, underWay := 0, 0
	for n, s := range slots {
		missing += ones(s.serves == nil && w[service][n] && !s.tied)
		underWay += ones(s.underWay && !s.tied && (s.serves != nil || w[service][n]))
	}
	if missing > floor {
		t.Fatalf("%s: %d slots have no running task, %d may have none", service, missing, floor)
	}
	if service == "web" && limit > 0 && underWay > limit {
		t.Fatalf("%d slots are under way, %d may be", underWay, limit)
	}
	// Those that had a task of this spec with these ports before, and have none now, were not taken from by an update.
	was := (&sim{s: before}).slotsOf(service)
	taken := map[uint64]bool{}
	for n, s := range slots {
		b := was[n].serves
		if s.serves == nil && !s.tied && b != nil && isOf(svc, b.GetSpecVersion()) &&
			strings.HasPrefix(m.s.Task(b.GetMeta().GetId()).GetDecided().GetReason(), "moved: ") {
			taken[n] = true
		}
	}
	for n, s := range was {
		missing -= ones(s.serves != nil && slots[n].serves == nil && !slots[n].tied && !taken[n] && w[service][n] && slots[n] != slotWatch{})
	}
	if len(taken) > 0 && missing > moves {
		t.Fatalf("%s: the slots %v have been taken from, and %d of %d may be missing but for the update", service, slices.Sorted(maps.Keys(taken)), moves, missing)
	}
}

func ones(b bool) int {
	if b {
		return 1
	}
	return 0
}

// checkRuns: of a job with a schedule no two runs go on at once unless they may, none has more tasks at once than it may, and
// there are no more of them than the schedule has.
func (m *sim) checkRuns(t fatal, spec []string) {
	svc, perRun := m.s.Service("cron"), map[uint64]int{}
	for task := range m.s.TasksOfService("cron") {
		if task.GetDecided().GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && !state.Terminal(task.GetObserved().GetState()) {
			perRun[task.GetDecided().GetIteration()]++
		}
	}
	if len(perRun) > 1 && !slices.Contains(spec, "policy=allow") {
		t.Fatalf("%s: %d runs go on", strings.Join(spec, " "), len(perRun))
	}
	for run, n := range perRun {
		if n > 2 {
			t.Fatalf("run %d has %d tasks at once", run, n)
		}
	}
	if due := m.now.Unix()/60 - svc.GetMeta().GetCreatedAt().GetSeconds()/60; svc.GetJobStatus().GetIteration() > uint64(due) {
		t.Fatalf("%d runs, and %d were due", svc.GetJobStatus().GetIteration(), due)
	}
}
