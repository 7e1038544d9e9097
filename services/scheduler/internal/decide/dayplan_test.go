package decide_test

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	up     = typesv1.NodeState_NODE_STATE_READY
	down   = typesv1.NodeState_NODE_STATE_DOWN
	active = typesv1.Availability_AVAILABILITY_ACTIVE
	drain  = typesv1.Availability_AVAILABILITY_DRAIN
)

// dayServices is how many replicated services there are; beside them one on each node, and a job with a schedule.
const dayServices = 60

// plan makes the services and lets people and faults begin. Rates are for a day of the whole cluster and grow with it.
func (d *day) plan(long time.Duration) {
	nodes := d.s.Count(typesv1.Kind_KIND_NODE)
	for i := range dayServices {
		n := uint64(1 + nodes*5*(1+d.rand.IntN(10))/(dayServices*5))
		d.service(fmt.Sprintf("svc%02d", i), replicas(n))
	}
	d.service("agent", nil)
	d.job("report")
	d.commit()
	for _, trouble := range []struct {
		every time.Duration
		do    func()
	}{
		{20 * time.Minute, d.deploy},
		{10 * time.Minute, d.rescale},
		{time.Duration(float64(100*time.Second) * 1000 / float64(nodes)), d.failTask},
		{time.Duration(float64(3*time.Hour) * 1000 / float64(nodes)), d.powerCut},
		{time.Duration(float64(4*time.Hour) * 1000 / float64(nodes)), d.flap},
		{8 * time.Hour, d.rackLost},
		{6 * time.Hour, d.upgradeNodes},
	} {
		d.often(trouble.every, trouble.do)
	}
	for at := time.Duration(0); at <= long; at += dayStep {
		d.in(at, d.look)
	}
}

// often does something again and again, at times that no rule tells.
func (d *day) often(every time.Duration, do func()) {
	d.in(time.Duration(d.rand.ExpFloat64()*float64(every)), func() {
		if d.over {
			return
		}
		do()
		d.often(every, do)
	})
}

func (d *day) service(name string, mode *typesv1.ServiceSpec_Replicated) {
	s := &typesv1.Service{Meta: &typesv1.Meta{Id: name}, SpecVersion: 1, Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: name},
		Task: &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "v1"}, Resources: &typesv1.ResourceRequirements{
			Reservations: &typesv1.Resources{NanoCpus: int64(1+d.rand.IntN(20)) * 1e8, MemoryBytes: int64(1+d.rand.IntN(40)) << 28}}},
		Mode: &typesv1.ServiceSpec_Global{Global: &typesv1.Global{}},
	}}
	if mode != nil {
		s.Spec.Mode = mode
	}
	width := uint64(1 + d.s.Count(typesv1.Kind_KIND_NODE)/20)
	s.Spec.Update = &typesv1.UpdateConfig{Parallelism: &width, Monitor: durationpb.New(5 * time.Second), MaxFailureRatio: 1,
		FailureAction: typesv1.FailureAction_FAILURE_ACTION_ROLLBACK}
	if d.rand.IntN(2) == 0 {
		s.Spec.Update.Order = typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST
	}
	d.put(state.Wrap(s))
}

// job has a run each quarter of an hour.
func (d *day) job(name string) {
	d.put(state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: name}, SpecVersion: 1, Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: name}, Task: &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "v1"}},
		Mode: &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: &typesv1.ReplicatedJob{
			TotalCompletions: proto.Uint64(50), MaxConcurrent: proto.Uint64(20)}},
		Job: &typesv1.JobConfig{Schedule: &typesv1.Schedule{Cron: "*/15 * * * *"}, HistoryLimit: proto.Uint32(2)},
	}}))
}

func (d *day) someService() *typesv1.Service {
	return proto.CloneOf(d.s.Service(fmt.Sprintf("svc%02d", d.rand.IntN(dayServices))))
}

// deploy makes a new version of a service.
func (d *day) deploy() {
	d.told["deploys"]++
	s := d.someService()
	s.SpecHistory = append([]*typesv1.SpecRecord{{Version: s.GetSpecVersion(), Task: s.GetSpec().GetTask()}}, s.GetSpecHistory()...)
	s.SpecHistory = s.SpecHistory[:min(len(s.GetSpecHistory()), 10)]
	s.Spec.Task = proto.CloneOf(s.GetSpec().GetTask())
	s.SpecVersion++
	s.Spec.Task.Container.Image = fmt.Sprintf("v%d", s.GetSpecVersion())
	d.put(state.Wrap(s))
}

func (d *day) rescale() {
	d.told["scalings"]++
	s := d.someService()
	n := state.Replicas(s)
	s.Spec.Mode = replicas(max(1, n*uint64(80+d.rand.IntN(45))/100))
	d.put(state.Wrap(s))
}

func (d *day) failTask() {
	for t := range d.s.TasksOfNode(d.someNode().GetMeta().GetId()) {
		if t.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_RUNNING && d.reachable(t) {
			d.told["tasks failed"]++
			d.observe(t, typesv1.TaskState_TASK_STATE_FAILED)
			return
		}
	}
}

func (d *day) someNode() *typesv1.Node {
	return d.s.Node(fmt.Sprintf("node%021d", d.rand.IntN(d.s.Count(typesv1.Kind_KIND_NODE))))
}

func (d *day) setNode(id string, change func(n *typesv1.Node)) {
	n := proto.CloneOf(d.s.Node(id))
	change(n)
	d.put(state.Wrap(n))
}

func (d *day) setState(id string, s typesv1.NodeState) {
	d.setNode(id, func(n *typesv1.Node) { n.Status.State, n.Status.Since = s, timestamppb.New(d.now) })
}

// lose takes a node away. With its power its containers go too.
func (d *day) lose(id string, after time.Duration, power bool) {
	if d.s.Node(id).GetStatus().GetState() != up {
		return
	}
	d.setState(id, down)
	d.in(after, func() {
		d.setState(id, up)
		d.in(time.Second, func() { d.comeBack(id, power) })
	})
}

// comeBack tells what has become of the tasks of a node that was away.
func (d *day) comeBack(id string, power bool) {
	for t := range d.s.TasksOfNode(id) {
		switch {
		case !d.reachable(t):
		case power && t.GetObserved().GetState() >= typesv1.TaskState_TASK_STATE_STARTING:
			d.observe(t, typesv1.TaskState_TASK_STATE_FAILED)
		default:
			d.obey(t)
		}
	}
}

func (d *day) powerCut() {
	d.told["power cuts"]++
	d.lose(d.someNode().GetMeta().GetId(), time.Minute+time.Duration(d.rand.IntN(60))*time.Minute, true)
}

func (d *day) flap() {
	d.told["cut off"]++
	d.lose(d.someNode().GetMeta().GetId(), time.Duration(5+d.rand.IntN(60))*time.Second, false)
}

func (d *day) rackLost() {
	d.told["racks lost"]++
	nodes := d.s.Count(typesv1.Kind_KIND_NODE)
	first, size := d.rand.IntN(nodes), max(1, nodes/250)
	for i := range size {
		d.lose(fmt.Sprintf("node%021d", (first+i)%nodes), 20*time.Minute, true)
	}
}

// upgradeNodes drains a few nodes after each other, starts them anew and activates them.
func (d *day) upgradeNodes() {
	d.told["upgrades"]++
	nodes := d.s.Count(typesv1.Kind_KIND_NODE)
	first := d.rand.IntN(nodes)
	for i := range max(1, nodes/100) {
		id := fmt.Sprintf("node%021d", (first+i)%nodes)
		at := time.Duration(i) * 20 * time.Second
		d.in(at, func() { d.setNode(id, func(n *typesv1.Node) { n.Spec.Availability = drain }) })
		d.in(at+5*time.Minute, func() { d.lose(id, 2*time.Minute, true) })
		d.in(at+8*time.Minute, func() { d.setNode(id, func(n *typesv1.Node) { n.Spec.Availability = active }) })
	}
}
