package answer

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// still is a view that does not change.
type still struct {
	s       *state.Snapshot
	trouble error
}

func (v still) Snapshot() *state.Snapshot { return v.s }
func (v still) Health() error             { return v.trouble }

func (v still) WaitFor(ctx context.Context, at state.Version) error {
	if v.s.Version().Reaches(at) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func machine(id, hostname string) *typesv1.Node {
	return &typesv1.Node{
		Meta: &typesv1.Meta{Id: id}, Identity: &typesv1.NodeIdentity{Hostname: hostname},
		Status: &typesv1.NodeStatus{State: typesv1.NodeState_NODE_STATE_READY, Description: &typesv1.NodeDescription{NanoCpus: 4e9, MemoryBytes: 8 << 30}},
	}
}

func web(replicas uint64) *typesv1.Service {
	return &typesv1.Service{
		Meta: &typesv1.Meta{Id: "s1"}, SpecVersion: 1, Spec: &typesv1.ServiceSpec{
			Annotations: &typesv1.Annotations{Name: "web"}, Task: &typesv1.TaskSpec{},
			Mode: &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &replicas}},
		},
	}
}

func cluster() still {
	txn := state.Empty().Begin()
	for _, m := range []proto.Message{machine("n1", "w1"), machine("n2", "w2"), machine("n22", "w2"), web(2), &typesv1.Cluster{Meta: &typesv1.Meta{Id: "c"}}} {
		txn.Put(state.Wrap(m))
	}
	return still{s: txn.Commit(state.Version{EpochNumber: 1, Revision: 7}, time.Unix(1e9, 0))}
}

func effect(objects ...*typesv1.Object) *controlv1.Effect { return &controlv1.Effect{Puts: objects} }

// TestRefusals: what makes no sense is said, and by which kind of error.
func TestRefusals(t *testing.T) {
	a := New(cluster())
	for name, c := range map[string]struct {
		call func() error
		kind errs.Kind
		says string
	}{
		"an unknown service": {func() error {
			_, err := explains{Answers: a}.Explain(t.Context(), &schedulerv1.ExplainRequest{Service: "nope"})
			return err
		}, errs.NotFound, "no such service: nope"},
		"an unknown task": {func() error {
			_, err := explains{Answers: a}.Explain(t.Context(), &schedulerv1.ExplainRequest{Service: "web", Task: "9"})
			return err
		}, errs.NotFound, `service "web" has no task 9`},
		"no change": {func() error {
			_, err := plans{Answers: a}.Plan(t.Context(), &schedulerv1.PlanRequest{})
			return err
		}, errs.Invalid, "nothing would change"},
		"an object of another kind": {func() error {
			o := state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}})
			_, err := plans{Answers: a}.Plan(t.Context(), &schedulerv1.PlanRequest{Effect: effect(o)})
			return err
		}, errs.Invalid, "effect.puts[0]"},
		"a hostname of two": {func() error {
			_, err := plans{Answers: a}.Plan(t.Context(), &schedulerv1.PlanRequest{PowerOff: []string{"w2"}})
			return err
		}, errs.Invalid, "2 match"},
	} {
		if err := c.call(); !errs.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v with %q", name, err, c.kind, c.says)
		}
	}
}

// TestAnswersSayTheirVersion: and no answer comes from a state that is older than was asked for, or out of touch.
func TestAnswersSayTheirVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := cluster()
		plan, err := plans{Answers: New(v)}.Plan(t.Context(), &schedulerv1.PlanRequest{PowerOff: []string{"n1"}, AtLeast: v.s.Version().Proto()})
		if err != nil || plan.GetVersion().GetRevision() != 7 {
			t.Errorf("%v, %v; want revision 7", plan.GetVersion(), err)
		}
		ahead := v.s.Version()
		ahead.Revision++
		_, err = explains{Answers: New(v)}.Explain(t.Context(), &schedulerv1.ExplainRequest{Service: "web", AtLeast: ahead.Proto()})
		if !errs.Is(err, errs.Unavailable) {
			t.Errorf("behind: %v", err)
		}
		v.trouble = errs.New(errs.Unavailable, "cut off")
		if _, err = (explains{Answers: New(v)}).Explain(t.Context(), &schedulerv1.ExplainRequest{Service: "web"}); !errs.Is(err, errs.Unavailable) {
			t.Errorf("cut off: %v", err)
		}
	})
}

// TestOneAnswerAtATime: a second question waits its turn, and not for ever; the turn comes free also after a refusal.
func TestOneAnswerAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(cluster())
		_, done, err := a.begin(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, _, err := a.begin(t.Context(), nil); !errs.Is(err, errs.Unavailable) || time.Since(begun) != turn {
			t.Errorf("the second: %v after %s", err, time.Since(begun))
		}
		done()
		for range 2 {
			if _, err := (explains{Answers: a}).Explain(t.Context(), &schedulerv1.ExplainRequest{Service: "nope"}); !errs.Is(err, errs.NotFound) {
				t.Errorf("after that: %v", err)
			}
		}
	})
}

// TestAnyObjectIsPlanned: a plan is made of what somebody sends, which no store has judged. It ends, whatever it is.
func TestAnyObjectIsPlanned(t *testing.T) {
	v := cluster()
	global, job := web(1), web(1)
	global.Spec.Mode = &typesv1.ServiceSpec_Global{Global: &typesv1.Global{}}
	job.Spec.Mode = &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: &typesv1.ReplicatedJob{TotalCompletions: proto.Uint64(1 << 60)}}
	odd := web(3)
	odd.Spec.Task.Placement = &typesv1.Placement{Constraints: []string{"!!"}, Affinities: []*typesv1.Affinity{{}}}
	for name, o := range map[string]proto.Message{
		"a service of nothing": &typesv1.Service{Meta: &typesv1.Meta{Id: "x"}}, "a node of nothing": &typesv1.Node{Meta: &typesv1.Meta{Id: "x"}},
		"more replicas than anybody has": web(1 << 60), "a job without end": job, "another mode": global, "constraints that do not read": odd,
	} {
		before := v.s.Version()
		got, err := plans{Answers: New(v)}.Plan(t.Context(), &schedulerv1.PlanRequest{Effect: effect(state.Wrap(o))})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if v.s.Version() != before || v.s.Service("s1").GetSpec().GetReplicated().GetReplicas() != 2 {
			t.Errorf("%s: the state has changed", name)
		}
		if listed(got) > 10_000 {
			t.Errorf("%s: %d actions are listed", name, listed(got))
		}
	}
}

func listed(p *schedulerv1.PlanResponse) (n int) {
	for _, s := range p.GetSteps() {
		n += len(s.GetActions())
	}
	return n
}
