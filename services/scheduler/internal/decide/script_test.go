package decide_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestScripts runs testdata: one file a rule, which its first line names. The first line of a block and each line below it is a command:
//
//	cluster [machine-network=CIDR] [machine-network6=CIDR] [history=N] [preemption=on]
//	node ID [cpus=N] [memory=SIZE] [disk=SIZE] [platform=os/arch] [users=on|WHY_NOT] | node ID down|ready|suspect|drain|pause|active|remove
//	node ID dispatcher=ID; dispatcher ID applied=now
//	network ID subnet=CIDR
//	service NAME [replicas=N] [restart-delay=D] [condition=C] [attempts=N] [window=D] [memory=SIZE] [cpus=N]
//	        [platform=os/arch] [users=private] [networks=ID] [fixed=A+B] [parallelism=N] [order=start-first] [delay=D]; again: an update
//	        [max-delay=D] [label.KEY=V] [mode=global|job|global-job] [completions=N] [concurrent=N] [job-deadline=D]
//	        [cron=FIELDS_WITH_UNDERSCORES] [zone=Z] [policy=allow|replace] [catch-up=D] [constraint=A+B] [prefer=KEY+KEY]
//	        [max-replicas=N] [strategy=binpack] [tolerate=KEY] [near=S] [far=S] [rather-near=S] [rather-far=S]
//	        [generic=KIND:N] [pids=N] [disk=SIZE] [limit-memory=SIZE] [host-port=N+any] [publish=N] [monitor=D] [action=continue|rollback]
//	        [ratio=F] [progress=D]
//	        [depends-on=A+B] [max-unavailable=N] [hold=true] [resume=N] [priority=N]
//	        [rollback-parallelism=N [rollback-order=start-first] [rollback-delay=D] [rollback-action=continue]]
//	        [rollback-to=VERSION: by hand; the other options of the task spec are those of then]
//	        [rebalance=always]
//	node … [label.KEY=V] [engine.KEY=V] [taint=KEY:VALUE:no-schedule|avoid|no-execute] [generic=gpu:a+b or gpu:N] [role=manager]
//	        [hostname=NAME] [ip=A] [pids=N] [stamp=true: down and ready carry the time]
//	service … [slot-volume=A+B] [name=NAME: that of the one before it, whose id was another]    give-up VOLUME: a person removes it
//	rebalance NAME=N[@NODE]: a request
//	service … [min=N] [max=N] [cpu-target=PERCENT] [memory-target=PERCENT or SIZE] [up=D] [down=D] [step=N] [limit-cpus=N]
//	load NAME [tasks=N] [cpu=N] [memory=SIZE] [dispatcher=ID]   what its tasks use together; without tasks: nothing is told
//	scale NAME=N    remove NAME
//	scheduler NAME leads|thinks|commits   another scheduler takes the lead, makes a plan, commits it later
//	observe NAME.SLOT[~N back] STATE [exit=N] [at=D] [message]
//	settle [at=D]   agents do what is desired
//	decide [at=D]   prints what the plan does
//	converge [until=D] decide and settle until nothing changes
//	ps NAME         prints the tasks, newest first; ls NAME how many run of those that are wanted
//	explain NAME [task=SLOT] [nodes=true] says why tasks are where they are
//	plan COMMAND    prints what a command would lead to, without it; also: plan node ID off
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

func (m *sim) command(out *strings.Builder, words []string) {
	opts, rest := options(words[1:])
	if at, ok := opts["at"]; ok {
		m.now = start().Add(m.duration(at))
	}
	switch words[0] {
	case "plan":
		m.foresee(out, words[1:])
	case "explain":
		m.explain(out, rest, opts)
	case "cluster":
		m.change(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "cluster"},
			Spec:     &typesv1.ClusterSpec{TaskHistoryLimit: int32(m.number(opts["history"], 5)), Scheduling: &typesv1.SchedulingConfig{Preemption: opts["preemption"] == "on"}},
			DataPath: &typesv1.DataPath{MachineNetwork: opts["machine-network"], MachineNetwork6: opts["machine-network6"]}}))
	case "node":
		m.node(rest, opts)
	case "dispatcher":
		m.change(state.Wrap(&typesv1.Member{Meta: &typesv1.Meta{Id: "dispatcher/" + rest[0]},
			AppliedRevision: m.s.Version().Revision}))
	case "network":
		m.change(state.Wrap(&typesv1.Network{Meta: &typesv1.Meta{Id: rest[0]},
			Spec: &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: rest[0]}},
			Ipam: &typesv1.NetworkIPAM{Subnets: strings.Split(opts["subnet"], "+"), Ranges: plusList(opts["range"]), Reserved: plusList(opts["reserved"])}}))
	case "service":
		m.service(rest[0], opts)
	case "scale":
		for name, n := range opts {
			s := proto.CloneOf(m.s.Service(name))
			s.Spec.Mode = replicas(uint64(m.number(n, 0)))
			m.change(state.Wrap(s))
		}
	case "rebalance":
		for name, text := range opts {
			request, node, _ := strings.Cut(text, "@")
			s := proto.CloneOf(m.s.Service(name))
			s.Spec.Rebalance = &typesv1.Rebalance{Always: s.GetSpec().GetRebalance().GetAlways(), Request: uint64(m.number(request, 0)), RequestNodeId: node}
			m.change(state.Wrap(s))
		}
	case "load":
		m.load(rest[0], opts)
	case "give-up":
		m.delete(typesv1.Kind_KIND_VOLUME, rest[0])
	case "scheduler":
		m.other(out, rest[0], rest[1])
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
	case "ls":
		running, wanted := state.Counts(m.s, rest[0])
		fmt.Fprintf(out, "%s %d/%d\n", rest[0], running, wanted)
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
	tasks := slices.Collect(m.s.TasksOfService(service))
	slices.SortFunc(tasks, func(a, b *typesv1.Task) int {
		return cmp.Or(cmp.Compare(a.GetDecided().GetIteration(), b.GetDecided().GetIteration()), cmp.Compare(a.GetDecided().GetSlot(), b.GetDecided().GetSlot()),
			cmp.Compare(a.GetDecided().GetForNode(), b.GetDecided().GetForNode()), cmp.Compare(b.GetMeta().GetId(), a.GetMeta().GetId()))
	})
	for _, t := range tasks {
		n := m.s.Node(t.GetDecided().GetNodeId())
		fmt.Fprintf(out, "%s node=%s desired=%s state=%s reason=%q\n", m.taskName(t), t.GetDecided().GetNodeId(),
			word(t.GetDecided().GetDesired()), word(state.TaskState(t, n)), state.TaskReason(t, n))
	}
}

func word(s typesv1.TaskState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "TASK_STATE_"))
}

func (m *sim) observeCommand(rest []string, opts map[string]string) {
	name, back, _ := strings.Cut(rest[0], "~")
	service, _, _ := strings.Cut(name, ".")
	service, _, _ = strings.Cut(service, "@")
	tasks := slices.Collect(m.s.TasksOfService(service))
	tasks = slices.DeleteFunc(tasks, func(t *typesv1.Task) bool { return m.taskName(t) != name })
	slices.SortFunc(tasks, func(a, b *typesv1.Task) int { return strings.Compare(b.GetMeta().GetId(), a.GetMeta().GetId()) })
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
