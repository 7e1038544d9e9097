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
// load. Machines are those that are heard. Wake is when it is to be asked again if nothing changes before; zero: never.
func Next(s *state.Snapshot, svc *typesv1.Service, machines int, now time.Time) (next *typesv1.ServiceScale, wake time.Time) {
	spec, was := svc.GetSpec().GetAutoscale(), svc.GetScale()
	if spec == nil || svc.GetSpec().GetReplicated() == nil {
		return nil, time.Time{}
	}
	if state.Newer(spec) {
		return was, time.Time{} // it may have a target that only a newer scheduler knows
	}
	d := begin(s, svc, machines, now)
	d.next = proto.CloneOf(was)
	if was.GetReplicas() != d.have { // it is new, or the bounds have moved
		d.next = &typesv1.ServiceScale{Replicas: was.GetReplicas()}
		if was == nil {
			d.next = &typesv1.ServiceScale{Replicas: d.have, ChangedAt: timestamppb.New(now), Reason: fmt.Sprintf("begins with %d", d.have)}
		} else {
			d.set(d.have, fmt.Sprintf("from %d to %d tasks are asked for", spec.GetMin(), spec.GetMax()))
		}
	}
	if !d.used && !d.counted {
		d.next.Fewer, d.next.More = nil, nil // nobody knows: a window begins anew
		return d.next, time.Time{}
	}
	d.wake = d.at.Add(state.LoadLife)
	if d.at.After(d.next.GetChangedAt().AsTime()) { // what was measured before is answered already
		d.weigh()
	}
	return d.next, d.wake
}

// decision is one look at one service.
type decision struct {
	spec *typesv1.Autoscale
	res  *typesv1.ResourceRequirements
	now  time.Time
	have uint64
	next *typesv1.ServiceScale
	wake time.Time

	load     *typesv1.ServiceLoad
	at       time.Time // since when it holds
	machines uint64    // that may lead connections
	// Whether somebody tells what tasks use, and what is led to them.
	used, counted bool
}

// begin takes the figures.
func begin(s *state.Snapshot, svc *typesv1.Service, machines int, now time.Time) *decision {
	d := &decision{spec: svc.GetSpec().GetAutoscale(), res: svc.GetSpec().GetTask().GetResources(), now: now, have: state.Replicas(svc),
		machines: uint64(machines)}
	d.load, d.at = state.LoadOf(s, svc.GetMeta().GetId(), now)
	d.used = d.load.GetTasks() > 0
	// Without a machine that is ready the figures are from before: nobody knows.
	d.counted = d.load.GetMachines() > 0 && machines > 0 && d.spec.GetConnections() > 0
	return d
}

// want is a number of tasks with what speaks for it.
type want struct {
	replicas uint64
	why      string
	known    bool
	// blind says that not all was measured.
	blind bool
}

// weigh asks each target, and follows the one that asks for most.
func (d *decision) weigh() {
	var best want
	blind := false
	for _, w := range d.asks() {
		blind = blind || w.blind
		if w.known && (!best.known || w.replicas > best.replicas) {
			best = w
		}
	}
	if !best.known {
		return
	}
	best.replicas = min(max(best.replicas, d.spec.GetMin()), d.spec.GetMax())
	d.follow(best, blind)
}

// asks is what each target calls for.
func (d *decision) asks() []want {
	cpu, memory := targets(d.spec, d.res)
	return []want{d.ask("cpu", d.load.GetNanoCpus(), cpu), d.ask("memory", d.load.GetMemoryBytes(), memory), d.askConnections()}
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
func (d *decision) ask(name string, used, target int64) want {
	tasks := d.load.GetTasks()
	if target <= 0 || !d.used {
		return want{blind: target > 0}
	}
	mean := float64(used) / float64(tasks)
	w := d.compare(name, mean*float64(min(tasks, d.have)), mean/float64(target), float64(target))
	w.blind = tasks < d.have
	return w
}

// askConnections is the same for connections, which machines count: all that were led to the service, by whichever task took
// them. The mean of a machine counts, for the same reason as that of a task. Machines that have not counted, because they have
// just come or their mesh does not answer, are no reason for more tasks; and before there are fewer they are taken to have led
// as many as the others, if these are at least half of all.
func (d *decision) askConnections() want {
	target := float64(d.spec.GetConnections()) * 1000
	if target == 0 || !d.counted {
		return want{blind: target > 0}
	}
	counted := min(d.load.GetMachines(), d.machines)
	mean := float64(d.load.GetMilliConnections()) / float64(d.load.GetMachines())
	of := func(machines uint64) want {
		all := mean * float64(machines)
		return d.compare("connections", all, all/target/float64(max(d.have, 1)), target)
	}
	w := of(counted)
	if counted < d.machines {
		if w.replicas < d.have {
			w = of(d.machines)
			w.replicas = min(w.replicas, d.have)
		}
		w.why += fmt.Sprintf(", counted by %d of %d machines", counted, d.machines)
		w.blind = 2*counted < d.machines
	}
	return w
}

// compare is what a load of all tasks together calls for, where each is this share of its target.
func (d *decision) compare(name string, all, share, target float64) want {
	percent := int64(math.Round(share * 100))
	w := want{replicas: d.have, why: fmt.Sprintf("%s %d %% of target", name, percent), known: true}
	if percent < 100-tolerance || percent > 100+tolerance {
		w.replicas = uint64(min(math.Ceil(all/target-1e-9), 1e9))
	}
	return w
}

// follow changes the number of tasks, or notes what waits for its window. Blind says that not all was measured: then there
// are never fewer.
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
