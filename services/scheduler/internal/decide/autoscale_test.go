package decide_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/autoscale"
)

// autoscale reads what a script says of a service that scales by its load.
func (m *sim) autoscale(s *typesv1.Service, opts map[string]string) {
	if _, ok := opts["max"]; !ok {
		return
	}
	a := &typesv1.Autoscale{Min: uint64(m.number(opts["min"], 1)), Max: uint64(m.number(opts["max"], 1)), CpuPercent: uint32(m.number(opts["cpu-target"], 0)),
		Connections: uint32(m.number(opts["connections-target"], 0)), MaxStep: uint64(m.number(opts["step"], 0)), UpWindow: durationpb.New(m.duration(cmpOr(opts["up"], "0s"))),
		DownWindow: durationpb.New(m.duration(cmpOr(opts["down"], "5m")))}
	if t := opts["memory-target"]; strings.HasSuffix(t, "M") || strings.HasSuffix(t, "G") {
		a.MemoryBytes = m.size(t)
	} else {
		a.MemoryPercent = uint32(m.number(t, 0))
	}
	if c, ok := opts["limit-cpus"]; ok {
		s.Spec.Task.Resources.Limits = &typesv1.Resources{NanoCpus: m.nano(c)}
	}
	s.Spec.Autoscale = a
}

// load tells, as one dispatcher does, what a service's tasks use, and how many connections its machines led to them.
func (m *sim) load(service string, opts map[string]string) {
	id := cmpOr(opts["dispatcher"], "d1")
	l := proto.CloneOf(m.s.Load(id))
	if l == nil {
		l = &typesv1.Load{Meta: &typesv1.Meta{Id: id}}
	}
	l.Services = slices.DeleteFunc(l.GetServices(), func(x *typesv1.ServiceLoad) bool { return x.GetServiceId() == service })
	if n, machines := m.number(opts["tasks"], 0), m.number(opts["machines"], 0); n+machines > 0 {
		l.Services = append(l.Services, &typesv1.ServiceLoad{ServiceId: service, Tasks: uint64(n), Machines: uint64(machines),
			NanoCpus: m.nano(cmpOr(opts["cpu"], "0")), MemoryBytes: m.size(cmpOr(opts["memory"], "0")),
			MilliConnections: m.number(opts["connections"], 0) * 1000})
	}
	slices.SortFunc(l.Services, func(a, b *typesv1.ServiceLoad) int { return cmp.Compare(a.GetServiceId(), b.GetServiceId()) })
	m.change(state.Wrap(l))
}

// describeScale tells what has changed of the number that the load calls for.
func (m *sim) describeScale(id string, was, is *typesv1.ServiceScale) string {
	var parts []string
	if is.GetReason() != was.GetReason() || is.GetReplicas() != was.GetReplicas() {
		parts = append(parts, is.GetReason())
	}
	for name, a := range map[string][2]*typesv1.ScaleAdvice{"more": {was.GetMore(), is.GetMore()}, "fewer": {was.GetFewer(), is.GetFewer()}} {
		switch {
		case proto.Equal(a[0], a[1]):
		case a[1] == nil:
			parts = append(parts, "no longer "+name)
		default:
			parts = append(parts, fmt.Sprintf("%s since %s: %d", name, a[1].GetSince().AsTime().Sub(start()), a[1].GetReplicas()))
		}
	}
	slices.Sort(parts)
	return fmt.Sprintf("scale %s=%d (%s)", id, is.GetReplicas(), strings.Join(parts, ", "))
}

// TestWords: a person is told the number, the target, and the last change with its reason.
func TestWords(t *testing.T) {
	m := newSim(t)
	m.command(nil, []string{"node", "a", "cpus=64"})
	m.command(nil, []string{"service", "web", "replicas=2", "min=2", "max=8", "cpus=1", "cpu-target=50"})
	m.converge(m.now)
	check := func(want string) {
		t.Helper()
		if got := autoscale.Words(m.s, m.s.Service("web"), 1, m.now); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	check("2 tasks, from 2 to 8; no figures, so nothing changes; begins with 2")
	for _, cpu := range []string{"2.5", "1"} {
		m.now = m.now.Add(time.Minute)
		running, _ := state.Counts(m.s, "web")
		m.command(nil, []string{"load", "web", fmt.Sprintf("tasks=%d", running), "cpu=" + cpu})
		m.converge(m.now)
	}
	m.now = m.now.Add(7 * time.Second)
	check("5 tasks, from 2 to 8; cpu 40 % of target by 5 tasks; fewer (2) are called for since 7s; scaled 2 → 5: cpu 250 % of target")
	m.command(nil, []string{"service", "led", "replicas=2", "min=2", "max=8", "connections-target=10"})
	m.converge(m.now)
	m.command(nil, []string{"load", "led", "machines=3", "connections=15"})
	if got, want := autoscale.Words(m.s, m.s.Service("led"), 4, m.now), "2 tasks, from 2 to 8; connections 75 % of target, counted by 3 of 4 machines; begins with 2"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if other := autoscale.Words(m.s, nil, 1, m.now); other != "" {
		t.Errorf("a service that does not scale is told %q", other)
	}
}

// TestScaleFollowsLoad: whatever load comes and goes, the number of tasks is from min to max, never falls sooner than its
// window after the load has, never without figures of every task, and comes to rest under a load that stays as it is.
func TestScaleFollowsLoad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newSim(t)
		m.command(nil, []string{"node", "a", "cpus=1000"})
		low, high := rapid.IntRange(1, 5).Draw(t, "min"), rapid.IntRange(5, 20).Draw(t, "max")
		down := time.Duration(rapid.IntRange(0, 300).Draw(t, "down")) * time.Second
		m.command(nil, []string{"service", "web", fmt.Sprintf("min=%d", low), fmt.Sprintf("max=%d", high), "cpus=1", "cpu-target=50",
			"down=" + down.String(), "up=" + rapid.SampledFrom([]string{"0s", "30s"}).Draw(t, "up"),
			fmt.Sprintf("step=%d", rapid.IntRange(0, 3).Draw(t, "step"))})
		m.converge(m.now)
		// tell measures all tasks, or all but some.
		tell := func(load int64, blind int) {
			running, _ := state.Counts(m.s, "web")
			m.command(nil, []string{"load", "web", fmt.Sprintf("tasks=%d", max(int(running)-blind, 0)), fmt.Sprintf("cpu=%.3f", float64(load)/1000)})
		}
		enough := m.now // the last time at which the load called for all the tasks there are
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m.now = m.now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "pause")) * time.Second)
			load, blind := int64(rapid.IntRange(0, 12000).Draw(t, "load")), rapid.IntRange(0, 1).Draw(t, "blind")
			was := state.Replicas(m.s.Service("web"))
			if load > int64(was-1)*500 {
				enough = m.now
			}
			tell(load, blind)
			m.converge(m.now)
			is := state.Replicas(m.s.Service("web"))
			switch {
			case is < uint64(low) || is > uint64(high):
				t.Fatalf("%d tasks, from %d to %d are asked for", is, low, high)
			case is < was && m.now.Sub(enough) < down:
				t.Fatalf("%d → %d tasks %s after the load called for all, before %s", was, is, m.now.Sub(enough), down)
			case is < was && blind > 0:
				t.Fatalf("%d → %d tasks although not all were measured", was, is)
			}
			if is != was {
				enough = m.now
			}
		}
		load := int64(rapid.IntRange(0, 12000).Draw(t, "last load"))
		var rested int
		for range 240 { // from one end to the other by one a window, and a hundred more
			m.now = m.now.Add(time.Minute)
			was := state.Replicas(m.s.Service("web"))
			tell(load, 0)
			m.converge(m.now)
			if rested++; state.Replicas(m.s.Service("web")) != was {
				rested = 0
			}
		}
		if rested < 100 {
			t.Fatalf("under a load that stays as it is the number changed %d minutes ago; %v", rested, m.s.Service("web").GetScale())
		}
	})
}
