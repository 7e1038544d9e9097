// Package autoscale says how many tasks a service's load calls for.
//
// It owns the rule from figures to a number: targets, tolerance, windows and steps. It is pure; what it has to remember is in
// the service (ServiceScale), so that another scheduler goes on where one stopped.
package autoscale

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// tolerance is how far from its target, in percent, the load may be without any change.
const tolerance = 10

// Next is the scale of a service at a cluster time: Was with what has changed, or nil for one that does not scale by its
// load. Wake is when it is to be asked again if nothing changes before; zero: never.
func Next(s *state.Snapshot, svc *typesv1.Service, now time.Time) (next *typesv1.ServiceScale, wake time.Time) {
	spec, was := svc.GetSpec().GetAutoscale(), svc.GetScale()
	if spec == nil || svc.GetSpec().GetReplicated() == nil {
		return nil, time.Time{}
	}
	if state.Newer(spec) {
		return was, time.Time{} // it may have a target that only a newer scheduler knows
	}
	d := &decision{spec: spec, now: now, have: state.Replicas(svc), next: proto.CloneOf(was)}
	if was.GetReplicas() != d.have { // it is new, or the bounds have moved
		d.next = &typesv1.ServiceScale{Replicas: was.GetReplicas()}
		if was == nil {
			d.next = &typesv1.ServiceScale{Replicas: d.have, ChangedAt: timestamppb.New(now), Reason: fmt.Sprintf("begins with %d", d.have)}
		} else {
			d.set(d.have, fmt.Sprintf("from %d to %d tasks are asked for", spec.GetMin(), spec.GetMax()))
		}
	}
	load, at := state.LoadOf(s, svc.GetMeta().GetId(), now)
	if load.GetTasks() == 0 {
		d.next.Fewer, d.next.More = nil, nil // nobody knows: a window begins anew
		return d.next, time.Time{}
	}
	d.wake = at.Add(state.LoadLife)
	if at.After(d.next.GetChangedAt().AsTime()) { // what was measured before is answered already
		d.weigh(load, svc.GetSpec().GetTask().GetResources())
	}
	return d.next, d.wake
}

// decision is one look at one service.
type decision struct {
	spec *typesv1.Autoscale
	now  time.Time
	have uint64
	next *typesv1.ServiceScale
	wake time.Time
}

// want is a number of tasks with what speaks for it.
type want struct {
	replicas uint64
	why      string
	known    bool
}

// weigh asks each target, and follows the one that asks for most.
func (d *decision) weigh(load *typesv1.ServiceLoad, res *typesv1.ResourceRequirements) {
	var best want
	for _, w := range d.asks(load, res) {
		if w.known && (!best.known || w.replicas > best.replicas) {
			best = w
		}
	}
	if !best.known {
		return
	}
	best.replicas = min(max(best.replicas, d.spec.GetMin()), d.spec.GetMax())
	d.follow(best, load.GetTasks() < d.have)
}

// asks is what each target calls for.
func (d *decision) asks(load *typesv1.ServiceLoad, res *typesv1.ResourceRequirements) []want {
	cpu, memory := targets(d.spec, res)
	return []want{d.ask("cpu", load.GetNanoCpus(), cpu, load.GetTasks()), d.ask("memory", load.GetMemoryBytes(), memory, load.GetTasks())}
}

// targets are what a task should use; 0: no target.
func targets(a *typesv1.Autoscale, res *typesv1.ResourceRequirements) (cpu, memory int64) {
	share := func(percent uint32, reserved, limit int64) int64 {
		if reserved == 0 {
			reserved = limit
		}
		return int64(float64(reserved) * float64(percent) / 100)
	}
	cpu = share(a.GetCpuPercent(), res.GetReservations().GetNanoCpus(), res.GetLimits().GetNanoCpus())
	memory = share(a.GetMemoryPercent(), res.GetReservations().GetMemoryBytes(), res.GetLimits().GetMemoryBytes())
	if a.GetMemoryBytes() > 0 && (memory == 0 || a.GetMemoryBytes() < memory) {
		memory = a.GetMemoryBytes()
	}
	return cpu, memory
}

// ask is how many tasks one target calls for. More tasks than there are cannot have been measured: a machine that has just
// changed its dispatcher may be told twice, so the mean of a task counts. Tasks that were not measured count as idle.
func (d *decision) ask(name string, used, target int64, tasks uint64) want {
	if target <= 0 {
		return want{}
	}
	mean := float64(used) / float64(tasks)
	percent := int64(math.Round(mean / float64(target) * 100))
	w := want{replicas: d.have, why: fmt.Sprintf("%s %d %% of target", name, percent), known: true}
	if percent < 100-tolerance || percent > 100+tolerance {
		all := mean * float64(min(tasks, d.have))
		w.replicas = uint64(min(math.Ceil(all/float64(target)-1e-9), 1e9))
	}
	return w
}

// follow changes the number of tasks, or notes what waits for its window. Blind says that not all tasks were measured: then
// there are never fewer.
func (d *decision) follow(w want, blind bool) {
	n := d.next
	if w.replicas <= d.have {
		n.More = nil
	}
	if w.replicas >= d.have || blind {
		n.Fewer = nil
	}
	switch {
	case w.replicas > d.have:
		n.More = d.advise(n.GetMore(), w.replicas, less)
		if d.passed(n.GetMore(), d.spec.GetUpWindow().AsDuration()) {
			d.set(d.have+d.step(n.GetMore().GetReplicas()-d.have), w.why)
		}
	case w.replicas < d.have && !blind:
		n.Fewer = d.advise(n.GetFewer(), w.replicas, more)
		if d.passed(n.GetFewer(), d.spec.GetDownWindow().AsDuration()) {
			d.set(d.have-d.step(d.have-n.GetFewer().GetReplicas()), w.why)
		}
	}
}

// advise notes the more cautious number.
func (d *decision) advise(was *typesv1.ScaleAdvice, replicas uint64, cautious func(x, y uint64) uint64) *typesv1.ScaleAdvice {
	if was == nil {
		return &typesv1.ScaleAdvice{Since: timestamppb.New(d.now), Replicas: replicas}
	}
	return &typesv1.ScaleAdvice{Since: was.GetSince(), Replicas: cautious(was.GetReplicas(), replicas)}
}

func less(x, y uint64) uint64 { return min(x, y) }
func more(x, y uint64) uint64 { return max(x, y) }

// passed reports whether a window is over, and asks to be woken when it will be.
func (d *decision) passed(a *typesv1.ScaleAdvice, window time.Duration) bool {
	end := a.GetSince().AsTime().Add(window)
	if d.now.Before(end) {
		if end.Before(d.wake) {
			d.wake = end
		}
		return false
	}
	return true
}

func (d *decision) step(n uint64) uint64 {
	if limit := d.spec.GetMaxStep(); limit > 0 {
		return min(n, limit)
	}
	return n
}

// set changes the number and says why.
func (d *decision) set(replicas uint64, why string) {
	d.next = &typesv1.ServiceScale{Replicas: replicas, ChangedAt: timestamppb.New(d.now),
		Reason: fmt.Sprintf("scaled %d → %d: %s", d.next.GetReplicas(), replicas, why)}
}
