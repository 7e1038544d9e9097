package decide_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestScripts runs testdata: one file a rule. The first line of a block and each line below it is a command:
//
//	cluster [machine-network=CIDR] [machine-network6=CIDR] [history=N]
//	node ID [cpus=N] [memory=SIZE] [platform=os/arch] | node ID down|ready|suspect|drain|pause|active|remove
//	node ID dispatcher=ID; dispatcher ID applied=now
//	network ID subnet=CIDR
//	service NAME [replicas=N] [restart-delay=D] [condition=C] [attempts=N] [window=D] [memory=SIZE] [cpus=N]
//	        [platform=os/arch] [networks=ID] [parallelism=N] [order=start-first] [delay=D]; again: an update
//	scale NAME=N    remove NAME
//	observe NAME.SLOT[~N back] STATE [exit=N] [at=D] [message]
//	settle [at=D]   agents do what is desired
//	decide [at=D]   prints what the plan does
//	converge [until=D] decide and settle until nothing changes
//	ps NAME         prints the tasks, newest first
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		m := newSim(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			m.fault = func(format string, args ...any) { d.Fatalf(t, format, args...) }
			var out strings.Builder
			words := []string{d.Cmd}
			for _, a := range d.CmdArgs {
				words = append(words, a.String())
			}
			m.command(&out, words)
			for line := range strings.Lines(d.Input) {
				if words := strings.Fields(line); len(words) > 0 {
					m.command(&out, words)
				}
			}
			return out.String()
		})
	})
}

// options splits words into name=value pairs and the rest.
func options(words []string) (opts map[string]string, rest []string) {
	opts = map[string]string{}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			opts[k] = v
		} else {
			rest = append(rest, w)
		}
	}
	return opts, rest
}

func (m *sim) command(out *strings.Builder, words []string) {
	opts, rest := options(words[1:])
	if at, ok := opts["at"]; ok {
		m.now = start().Add(m.duration(at))
	}
	switch words[0] {
	case "cluster":
		m.change(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "cluster"},
			Spec:     &typesv1.ClusterSpec{TaskHistoryLimit: int32(m.number(opts["history"], 5))},
			DataPath: &typesv1.DataPath{MachineNetwork: opts["machine-network"], MachineNetwork6: opts["machine-network6"]}}))
	case "node":
		m.node(rest, opts)
	case "dispatcher":
		m.change(state.Wrap(&typesv1.Member{Meta: &typesv1.Meta{Id: "dispatcher/" + rest[0]},
			AppliedRevision: m.s.Version().Revision}))
	case "network":
		m.change(state.Wrap(&typesv1.Network{Meta: &typesv1.Meta{Id: rest[0]},
			Spec: &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: rest[0]}},
			Ipam: &typesv1.NetworkIPAM{Subnets: strings.Split(opts["subnet"], "+")}}))
	case "service":
		m.service(rest[0], opts)
	case "scale":
		for name, n := range opts {
			s := proto.CloneOf(m.s.Service(name))
			s.Spec.Mode = replicas(uint64(m.number(n, 0)))
			m.change(state.Wrap(s))
		}
	case "remove":
		m.delete(typesv1.Kind_KIND_SERVICE, rest[0])
	case "observe":
		m.observeCommand(rest, opts)
	case "settle":
		m.settle()
	case "decide":
		lines, wake := m.decide()
		m.print(out, lines, wake)
	case "converge":
		limit := m.now
		if u, ok := opts["until"]; ok {
			limit = start().Add(m.duration(u))
		}
		m.print(out, m.converge(limit), time.Time{})
	case "ps":
		m.ps(out, rest[0])
	default:
		m.fault("no command %q", words[0])
	}
}

func (m *sim) print(out *strings.Builder, lines []string, wake time.Time) {
	for _, l := range lines {
		fmt.Fprintln(out, l)
	}
	if !wake.IsZero() {
		fmt.Fprintf(out, "wake at=%s\n", wake.Sub(start()))
	} else if len(lines) == 0 {
		fmt.Fprintln(out, "nothing to do")
	}
}

func (m *sim) ps(out *strings.Builder, service string) {
	for slot := range uint64(50) {
		for _, t := range m.slot(service, slot) {
			n := m.s.Node(t.GetDecided().GetNodeId())
			fmt.Fprintf(out, "%s node=%s desired=%s state=%s reason=%q\n", m.taskName(t), t.GetDecided().GetNodeId(),
				word(t.GetDecided().GetDesired()), word(state.TaskState(t, n)), state.TaskReason(t, n))
		}
	}
}

func word(s typesv1.TaskState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "TASK_STATE_"))
}

func (m *sim) node(rest []string, opts map[string]string) {
	n := proto.CloneOf(m.s.Node(rest[0]))
	if n == nil {
		os, arch, _ := strings.Cut(cmpOr(opts["platform"], "linux/amd64"), "/")
		n = &typesv1.Node{Meta: &typesv1.Meta{Id: rest[0]},
			Spec: &typesv1.NodeSpec{Availability: typesv1.Availability_AVAILABILITY_ACTIVE},
			Status: &typesv1.NodeStatus{State: typesv1.NodeState_NODE_STATE_READY, Description: &typesv1.NodeDescription{
				Platform: &typesv1.Platform{Os: os, Architecture: arch},
				NanoCpus: m.nano(cmpOr(opts["cpus"], "4")), MemoryBytes: m.size(cmpOr(opts["memory"], "8G"))}}}
	}
	if d, ok := opts["dispatcher"]; ok {
		n.Status.Session = &typesv1.NodeSession{DispatcherId: d}
	}
	for _, verb := range rest[1:] {
		switch verb {
		case "down":
			n.Status.State = typesv1.NodeState_NODE_STATE_DOWN
		case "suspect":
			n.Status.State = typesv1.NodeState_NODE_STATE_SUSPECT
		case "ready":
			n.Status.State = typesv1.NodeState_NODE_STATE_READY
		case "drain":
			n.Spec.Availability = typesv1.Availability_AVAILABILITY_DRAIN
		case "pause":
			n.Spec.Availability = typesv1.Availability_AVAILABILITY_PAUSE
		case "active":
			n.Spec.Availability = typesv1.Availability_AVAILABILITY_ACTIVE
		case "remove":
			m.delete(typesv1.Kind_KIND_NODE, rest[0])
			return
		default:
			m.fault("no node verb %q", verb)
		}
	}
	m.change(state.Wrap(n))
}

func replicas(n uint64) *typesv1.ServiceSpec_Replicated {
	return &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &n}}
}

func (m *sim) service(name string, opts map[string]string) {
	task := &typesv1.TaskSpec{
		Restart: &typesv1.RestartPolicy{
			Condition: map[string]typesv1.RestartCondition{
				"none": typesv1.RestartCondition_RESTART_CONDITION_NONE, "on-failure": typesv1.RestartCondition_RESTART_CONDITION_ON_FAILURE,
			}[opts["condition"]],
			MaxAttempts: uint64(m.number(opts["attempts"], 0)),
			Window:      durationpb.New(m.duration(cmpOr(opts["window"], "0s"))),
		},
		Resources: &typesv1.ResourceRequirements{Reservations: &typesv1.Resources{
			NanoCpus: m.nano(cmpOr(opts["cpus"], "0")), MemoryBytes: m.size(cmpOr(opts["memory"], "0"))}},
	}
	if d, ok := opts["restart-delay"]; ok {
		task.Restart.Delay = durationpb.New(m.duration(d))
	}
	if os, arch, ok := strings.Cut(opts["platform"], "/"); ok {
		task.Placement = &typesv1.Placement{Platforms: []*typesv1.Platform{{Os: os, Architecture: arch}}}
	}
	if n := opts["networks"]; n != "" {
		task.Networks = append(task.Networks, &typesv1.NetworkAttachment{Target: n})
	}
	update := &typesv1.UpdateConfig{Delay: durationpb.New(m.duration(cmpOr(opts["delay"], "0s")))}
	if p, ok := opts["parallelism"]; ok {
		update.Parallelism = proto.Uint64(uint64(m.number(p, 1)))
	}
	if opts["order"] == "start-first" {
		update.Order = typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST
	}
	s := &typesv1.Service{Meta: &typesv1.Meta{Id: name}, SpecVersion: 1, Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: name}, Task: task, Update: update,
		Mode: replicas(uint64(m.number(opts["replicas"], 1)))}}
	if old := m.s.Service(name); old != nil { // an update: the replicas stay unless they are named
		s.Meta, s.UpdateStatus, s.SpecVersion = proto.CloneOf(old.GetMeta()), old.GetUpdateStatus(), old.GetSpecVersion()+1
		s.SpecHistory = append([]*typesv1.SpecRecord{{Version: old.GetSpecVersion(), Task: old.GetSpec().GetTask()}}, old.GetSpecHistory()...)
		if _, ok := opts["replicas"]; !ok {
			s.Spec.Mode = replicas(state.Replicas(old))
		}
	}
	m.change(state.Wrap(s))
}

func (m *sim) observeCommand(rest []string, opts map[string]string) {
	name, back, _ := strings.Cut(rest[0], "~")
	service, number, _ := strings.Cut(name, ".")
	tasks := m.slot(service, uint64(m.number(number, 0)))
	i := int(m.number(back, 0))
	if i >= len(tasks) {
		m.fault("slot %s has %d tasks", name, len(tasks))
	}
	var exit *int32
	if e, ok := opts["exit"]; ok {
		exit = proto.Int32(int32(m.number(e, 0)))
	}
	m.observe(tasks[i], typesv1.TaskState(typesv1.TaskState_value["TASK_STATE_"+strings.ToUpper(rest[1])]), exit, strings.Join(rest[2:], " "))
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (m *sim) number(text string, otherwise int64) int64 {
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		m.fault("%v", err)
	}
	return n
}

func (m *sim) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		m.fault("%v", err)
	}
	return d
}

func (m *sim) nano(text string) int64 {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		m.fault("%v", err)
	}
	return int64(f * 1e9)
}

func (m *sim) size(text string) int64 {
	shift := 0
	switch {
	case strings.HasSuffix(text, "G"):
		shift = 30
	case strings.HasSuffix(text, "M"):
		shift = 20
	}
	return m.number(strings.TrimRight(text, "GM"), 0) << shift
}
