package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Workload is what a person does to a cluster, and what must have come of it.
type Workload struct {
	c    *Cluster
	rand *run.Rand
	made int
	// want are the replicas that were acknowledged; a call without an answer leaves open whether it took effect.
	want map[string]acknowledged
	seen map[string]typesv1.TaskState // the highest observed state of each task
}

type acknowledged struct {
	replicas uint64
	open     []uint64 // replicas of calls without an answer since
	gone     bool     // removed, or perhaps removed
}

// NewWorkload makes a person with nothing to do yet.
func NewWorkload(c *Cluster, seed uint64) *Workload {
	return &Workload{c: c, rand: run.NewRand(seed), want: map[string]acknowledged{}, seen: map[string]typesv1.TaskState{}}
}

// Some does one or two things.
func (w *Workload) Some() {
	for range 1 + w.rand.IntN(2) {
		switch n := w.rand.IntN(10); {
		case n < 3 || len(w.want) == 0:
			w.create()
		case n < 7:
			w.scale()
		case n < 8:
			w.remove()
		case n < 9:
			w.roll()
		default:
			w.rotate()
		}
		w.Look()
	}
}

func (w *Workload) create() {
	w.made++
	name, n := fmt.Sprintf("svc%d", w.made), uint64(1+w.rand.IntN(6))
	_, err := w.c.Operator.CreateService(name, n)
	switch {
	case err == nil:
		w.want[name] = acknowledged{replicas: n}
	case open(err):
		w.want[name] = acknowledged{gone: true, open: []uint64{n}}
	default:
		w.c.t.Errorf("create %s: %v", name, err)
	}
}

// open tells whether a call may have taken effect although it failed.
func open(err error) bool { return errs.Is(err, errs.Unavailable) }

func (w *Workload) pick() string {
	var names []string
	for name, a := range w.want {
		if !a.gone {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[w.rand.IntN(len(names))]
}

func (w *Workload) scale() {
	name := w.pick()
	if name == "" {
		return
	}
	n := uint64(w.rand.IntN(12))
	a := w.want[name]
	switch err := w.c.Operator.Scale(name, n); {
	case err == nil:
		a = acknowledged{replicas: n}
	case open(err) || errs.Is(err, errs.Conflict):
		a.open = append(a.open, n)
	default:
		w.c.t.Errorf("scale %s: %v", name, err)
	}
	w.want[name] = a
}

// roll makes new tasks of an equal spec.
func (w *Workload) roll() {
	name := w.pick()
	if name == "" {
		return
	}
	err := w.c.Operator.Update(name, func(s *typesv1.ServiceSpec) { s.Task.ForceUpdate++ })
	if err != nil && !open(err) && !errs.Is(err, errs.Conflict) {
		w.c.t.Errorf("update %s: %v", name, err)
	}
}

func (w *Workload) remove() {
	name := w.pick()
	if name == "" {
		return
	}
	ctx, cancel := w.c.Operator.context()
	defer cancel()
	_, err := w.c.Operator.Services.DeleteService(ctx, &controlv1.DeleteServiceRequest{Service: name})
	if err != nil && !open(err) && !errs.Is(err, errs.NotFound) {
		w.c.t.Errorf("remove %s: %v", name, err)
		return
	}
	a := w.want[name]
	a.gone = true
	if err != nil {
		a.open = append(a.open, a.replicas)
	}
	w.want[name] = a
}

func (w *Workload) rotate() {
	ctx, cancel := w.c.Operator.context()
	defer cancel()
	_, err := w.c.Operator.Tokens.RotateJoinToken(ctx, &cav1.RotateJoinTokenRequest{Role: typesv1.NodeRole_NODE_ROLE_WORKER})
	if err != nil && !open(err) {
		w.c.t.Errorf("rotate the worker token: %v", err)
	}
}

// Look checks that observed states only rise.
func (w *Workload) Look() {
	ctx, cancel := w.c.Operator.context()
	defer cancel()
	resp, err := w.c.Operator.Tasks.ListTasks(ctx, &controlv1.ListTasksRequest{})
	if err != nil {
		return // the store may be away
	}
	addresses := map[string]string{}
	for _, t := range resp.GetTasks() {
		id, now := t.GetTask().GetMeta().GetId(), t.GetTask().GetObserved().GetState()
		if was := w.seen[id]; now < was {
			w.c.t.Errorf("task %s fell from %s to %s", id, was, now)
		}
		w.seen[id] = now
		if now >= typesv1.TaskState_TASK_STATE_COMPLETE {
			continue
		}
		for _, a := range t.GetTask().GetDecided().GetAddresses() {
			for _, ip := range a.GetAddresses() {
				key := a.GetNetworkId() + "/" + ip
				if other := addresses[key]; other != "" {
					w.c.t.Errorf("address %s is held by the tasks %s and %s", ip, other, id)
				}
				addresses[key] = id
			}
		}
	}
}

// Settle waits until all is as acknowledged, and compares what runs on the machines with what the store says.
func (w *Workload) Settle(within time.Duration) {
	w.c.t.Helper()
	w.c.Ready(within)
	w.c.Until("all services are as acknowledged", within, w.wrong)
	w.c.Until("exactly the wanted containers run", within, w.c.Strays)
	w.Look()
}

// Answer asks each published port on every hollow machine, and wants one of the service's tasks to answer.
func (w *Workload) Answer(snap *state.Snapshot) {
	w.c.t.Helper()
	for svc := range snap.Services() {
		if running, _ := state.Counts(snap, svc.GetMeta().GetId()); running == 0 {
			continue
		}
		for _, p := range svc.GetEndpoint().GetPorts() {
			for _, m := range w.c.With(authzv1.Role_ROLE_MESHPROXY) {
				w.c.Until("an answer on a published port", 10*time.Second, func() string {
					task, err := w.c.Ask(m, fmt.Sprint(p.GetPublishedPort()))
					if err != nil {
						return fmt.Sprintf("%s: %s: %v", svc.GetSpec().GetAnnotations().GetName(), m.Name, err)
					}
					if id := snap.Task(task).GetServiceId(); id != svc.GetMeta().GetId() {
						return fmt.Sprintf("%s: %s: task %q answers", svc.GetSpec().GetAnnotations().GetName(), m.Name, task)
					}
					return ""
				})
			}
		}
	}
}

func (w *Workload) wrong() string {
	for name, a := range w.want {
		ctx, cancel := w.c.Operator.context()
		resp, err := w.c.Operator.Services.GetService(ctx, &controlv1.GetServiceRequest{Service: name})
		cancel()
		switch {
		case errs.Is(err, errs.NotFound) && a.gone:
			continue
		case err != nil:
			return fmt.Sprintf("%s: %v", name, err)
		case a.gone && len(a.open) == 0:
			return name + " was removed and is there"
		}
		n := resp.GetService().GetSpec().GetReplicated().GetReplicas()
		if n != a.replicas && !slices.Contains(a.open, n) {
			w.c.t.Fatalf("%s wants %d replicas; acknowledged were %d, open are %v", name, n, a.replicas, a.open)
		}
		if wrong := w.c.Operator.Wrong(name, n); wrong != "" {
			return wrong
		}
	}
	return ""
}

// Strays compares what runs on the machines with what the store wants; empty when it is the same.
func (c *Cluster) Strays() string {
	ctx, cancel := c.Operator.context()
	defer cancel()
	resp, err := c.Operator.Tasks.ListTasks(ctx, &controlv1.ListTasksRequest{})
	if err != nil {
		return err.Error()
	}
	wanted := map[string]string{}
	for _, t := range resp.GetTasks() {
		if state.DesiredState(t.GetTask()) == typesv1.TaskState_TASK_STATE_RUNNING &&
			t.GetTask().GetObserved().GetState() == typesv1.TaskState_TASK_STATE_RUNNING {
			wanted[t.GetTask().GetMeta().GetId()] = t.GetTask().GetDecided().GetNodeId()
		}
	}
	for _, m := range c.Machines {
		for _, k := range m.Runtime.Containers() {
			if !k.Running {
				continue
			}
			if wanted[k.TaskID] != m.ID {
				return fmt.Sprintf("%s runs %s, which nobody wants there", m.Name, k.TaskID)
			}
			delete(wanted, k.TaskID)
		}
	}
	for id := range wanted {
		return "task " + id + " runs nowhere"
	}
	return ""
}
