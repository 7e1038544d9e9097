package decide_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestCrashChangesNothing: a scheduler that dies at any moment, with a plan made and not committed or just committed, ends
// where one that never dies ends. Its successor takes over three seconds later and knows the snapshot alone. One whose plan
// is refused lives on and must not take it for done.
func TestCrashChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		steady, frail := newSim(t), newSim(t)
		both := func(words ...string) {
			later := slices.MaxFunc([]time.Time{steady.now, frail.now}, time.Time.Compare).Add(time.Minute)
			for _, m := range []*sim{steady, frail} {
				m.now = later
				m.command(nil, words)
			}
		}
		for i := range rapid.IntRange(2, 4).Draw(t, "nodes") {
			both("node", fmt.Sprintf("n%d", i), "stamp=true")
		}
		for range rapid.IntRange(1, 8).Draw(t, "events") {
			drawEvent(t, both)
			steady.converge(steady.now.Add(10 * time.Minute))
			frail.convergeDying(t, frail.now.Add(10*time.Minute))
			if a, b := steady.digest(), frail.digest(); !slices.Equal(a, b) {
				t.Fatalf("without a crash\n%v\nwith crashes\n%v", a, b)
			}
		}
	})
}

func drawEvent(t *rapid.T, both func(words ...string)) {
	switch rapid.IntRange(0, 9).Draw(t, "event") {
	case 6:
		both("node", "n1", "stamp=true", rapid.SampledFrom([]string{"label.ok=no", "label.ok=yes", "memory=1G", "memory=4G", "taint=x::no-execute", "taint="}).Draw(t, "rule"))
	case 7:
		both("cluster", "preemption="+rapid.SampledFrom([]string{"on", "off"}).Draw(t, "preemption"))
		both("service", "first", "priority=5", "memory=1G", fmt.Sprintf("replicas=%d", rapid.IntRange(0, 4).Draw(t, "replicas")), "host-port=any")
	case 8:
		both("service", "after", "depends-on="+rapid.SampledFrom([]string{"web", "job", "api+all"}).Draw(t, "on"), "memory=1G",
			"constraint=node.labels.ok_!=_no", rapid.SampledFrom([]string{"", "rebalance=always"}).Draw(t, "even"))
	case 9:
		both("service", "scaled", "min=1", "max=4", "cpus=0.1", "cpu-target=50", "down=0s", "rollback-parallelism=2")
		both("load", "scaled", "tasks=1", fmt.Sprintf("cpu=0.%d", rapid.IntRange(0, 9).Draw(t, "load")))
	case 0:
		both("service", "job", "mode=job", fmt.Sprintf("completions=%d", rapid.IntRange(1, 5).Draw(t, "completions")), "concurrent=2",
			"image="+rapid.SampledFrom([]string{"v1", "v2"}).Draw(t, "image"))
	case 1:
		both("service", "all", "mode=global", "image="+rapid.SampledFrom([]string{"v1", "v2"}).Draw(t, "image"))
	case 2:
		both("node", "n0", "stamp=true", rapid.SampledFrom([]string{"down", "drain", "active", "ready"}).Draw(t, "change"))
	default:
		both("service", rapid.SampledFrom([]string{"web", "api"}).Draw(t, "name"), fmt.Sprintf("replicas=%d", rapid.IntRange(0, 6).Draw(t, "replicas")),
			"image="+rapid.SampledFrom([]string{"v1", "v2", "v3"}).Draw(t, "image"), "order="+rapid.SampledFrom([]string{"stop-first", "start-first"}).Draw(t, "order"),
			fmt.Sprintf("parallelism=%d", rapid.IntRange(0, 2).Draw(t, "parallelism")), "monitor="+rapid.SampledFrom([]string{"0s", "5s"}).Draw(t, "monitor"))
	}
}

// convergeDying is converge with a scheduler that dies up to ten times on the way.
func (m *sim) convergeDying(t *rapid.T, limit time.Time) {
	lives := 10
	dies := func(when string) bool {
		if lives == 0 || rapid.IntRange(0, 3).Draw(t, when) != 0 {
			return false
		}
		lives--
		m.now, m.decider = m.now.Add(3*time.Second), newSim(t).decider
		return true
	}
	for range 1000 {
		p := m.plan()
		if rapid.IntRange(0, 9).Draw(t, "is refused") == 0 && lives > 0 { // somebody else was faster; it lives on
			lives--
			continue
		}
		if dies("dies before the commit") {
			continue
		}
		m.apply(p)
		dies("dies after the commit")
		if m.settle() || !p.Empty() {
			continue
		}
		if p.Wake.IsZero() || p.Wake.After(limit) {
			return
		}
		m.now = slices.MaxFunc([]time.Time{m.now, p.Wake}, time.Time.Compare)
	}
	m.fault("no convergence")
}

// digest is what a person sees of the services.
func (m *sim) digest() (out []string) {
	for svc := range m.s.Services() {
		have, want := state.Counts(m.s, svc.GetMeta().GetId())
		out = append(out, fmt.Sprintf("%s %d/%d update %s job %s", svc.GetMeta().GetId(), have, want,
			svc.GetUpdateStatus().GetState(), svc.GetJobStatus().GetState()))
		for task := range m.s.TasksOfService(svc.GetMeta().GetId()) {
			if task.GetDecided().GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING {
				out = append(out, fmt.Sprintf("%s version %d is %s", m.taskName(task), task.GetSpecVersion(), task.GetObserved().GetState()))
			}
		}
	}
	slices.Sort(out)
	return out
}
