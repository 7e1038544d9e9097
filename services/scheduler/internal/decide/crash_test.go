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
				if words[0] != "remove" || m.s.Service(words[1]) != nil {
					m.command(nil, words)
				}
			}
		}
		for i := range rapid.IntRange(2, 4).Draw(t, "nodes") {
			both("node", fmt.Sprintf("n%d", i), "stamp=true", "disk=20G")
		}
		for i := range rapid.IntRange(1, 8).Draw(t, "events") {
			drawEvent(t, steady, i, both)
			limit := steady.now.Add(10 * time.Minute)
			frail.convergeDying(t, limit)
			steady.converge(slices.MaxFunc([]time.Time{limit, frail.now}, time.Time.Compare)) // dying takes time, in which a schedule may go on
			if a, b := steady.digest(), frail.digest(); !slices.Equal(a, b) {
				t.Fatalf("without a crash\n%v\nwith crashes\n%v", a, b)
			}
		}
	})
}

// drawEvent is one thing that people, machines or load do. A run of a job that ends while nobody decides is made up for: its
// schedule lets it be late by more than all deaths together.
func drawEvent(t *rapid.T, m *sim, nr int, both func(words ...string)) {
	switch rapid.IntRange(0, 14).Draw(t, "event") {
	case 10:
		name := rapid.SampledFrom([]string{"cron", "each"}).Draw(t, "job")
		both("service", name, "mode="+map[string]string{"cron": "job", "each": "global-job"}[name], "completions=2",
			"cron="+rapid.SampledFrom([]string{"*_*_*_*_*", "*/4_*_*_*_*", "3-59/7_*_*_*_*"}).Draw(t, "cron"), "policy="+rapid.SampledFrom([]string{"forbid", "allow", "replace"}).Draw(t, "policy"), "catch-up=50s")
	case 11:
		both("remove", rapid.SampledFrom([]string{"cron", "each", "web", "scaled", "job"}).Draw(t, "removed"))
	case 12, 13: // a service with volumes, removed and made anew under its name: another id, the same data
		for svc := range m.s.Services() {
			if svc.GetSpec().GetAnnotations().GetName() == "db" {
				both("remove", svc.GetMeta().GetId())
			}
		}
		both("service", fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"a", "z"}).Draw(t, "db"), nr), "name=db", fmt.Sprintf("replicas=%d", rapid.IntRange(0, 4).Draw(t, "replicas")),
			"slot-volume="+rapid.SampledFrom([]string{"data", "data+log"}).Draw(t, "volumes"), "disk="+rapid.SampledFrom([]string{"0", "8G"}).Draw(t, "disk"))
	case 14:
		both("service", "led", "min=1", "max=5", "connections-target=10", "down=30s")
		both("load", "led", fmt.Sprintf("machines=%d", m.s.Count(typesv1.Kind_KIND_NODE)), fmt.Sprintf("connections=%d", rapid.IntRange(0, 60).Draw(t, "connections")))
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
