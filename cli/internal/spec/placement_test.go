package spec_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/spec"
)

func TestModesAndTheirFigures(t *testing.T) {
	two, five, zero := uint64(2), uint64(5), uint64(0)
	for _, r := range []struct {
		args  []string
		want  *typesv1.ServiceSpec
		fault string
	}{
		{args: []string{"--mode", "global"}, want: &typesv1.ServiceSpec{Mode: &typesv1.ServiceSpec_Global{Global: &typesv1.Global{}}}},
		{args: []string{"--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2"}, want: &typesv1.ServiceSpec{
			Mode: &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: &typesv1.ReplicatedJob{TotalCompletions: &five, MaxConcurrent: &two}}}},
		{args: []string{"--mode", "replicated-job", "--max-concurrent", "0"}, want: &typesv1.ServiceSpec{ // the store says what may be
			Mode: &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: &typesv1.ReplicatedJob{MaxConcurrent: &zero}}}},
		{args: []string{"--mode", "global-job", "--schedule", "*/5 * * * *", "--time-zone", "Europe/Berlin", "--concurrency", "replace", "--catch-up", "1m", "--deadline", "1h"},
			want: &typesv1.ServiceSpec{Mode: &typesv1.ServiceSpec_GlobalJob{GlobalJob: &typesv1.GlobalJob{}}, Job: &typesv1.JobConfig{
				Deadline: durationpb.New(3600e9), Schedule: &typesv1.Schedule{
					Cron: "*/5 * * * *", TimeZone: "Europe/Berlin", Concurrency: typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_REPLACE, CatchUp: durationpb.New(60e9),
				}}}},
		{args: []string{"--mode", "some"}, fault: `"some" is not replicated, global, replicated-job or global-job`},
		{args: []string{"--mode", "global", "--replicas", "2"}, fault: "has no meaning for a global service"},
		{args: []string{"--max-concurrent", "2"}, fault: "is for replicated jobs"},
		{args: []string{"--concurrency", "perhaps"}, fault: `"perhaps" is not forbid, allow or replace`},
		{args: []string{"--schedule", "", "--catch-up", "1m"}, fault: "there is nothing to set of it"},
	} {
		got, err := flagsOf(t, (*spec.Flags).Create, append([]string{"--name", "w"}, r.args...)...).Spec("i", nil)
		if r.fault != "" {
			if err == nil || !strings.Contains(err.Error(), r.fault) {
				t.Errorf("%q: %v, wanted %q", r.args, err, r.fault)
			}
			continue
		}
		r.want.Annotations, r.want.Task = &typesv1.Annotations{Name: "w"}, &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "i"}}
		if diff := cmp.Diff(r.want, got, protocmp.Transform()); diff != "" || err != nil {
			t.Errorf("%q: %v %s", r.args, err, diff)
		}
	}
}

func TestARepeatedScaleOfAJobKeepsItsOwnBound(t *testing.T) {
	two, five, nine := uint64(2), uint64(5), uint64(9)
	for _, r := range []struct{ atOnce, want *uint64 }{{&five, nil}, {&two, &two}} {
		s := &typesv1.ServiceSpec{Mode: &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: &typesv1.ReplicatedJob{TotalCompletions: &five, MaxConcurrent: r.atOnce}}}
		want := &typesv1.ReplicatedJob{TotalCompletions: &nine, MaxConcurrent: r.want}
		if err := spec.SetReplicas(s, 9); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, s.GetReplicatedJob(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestPlacementComesAndGoes(t *testing.T) {
	three := uint64(3)
	f := flagsOf(t, (*spec.Flags).Create, "--name", "w", "--constraint", "node.labels.disk == ssd", "--constraint", "node.role in (worker, manager)",
		"--placement-pref", "spread=node.labels.zone", "--replicas-max-per-node", "2", "--strategy", "binpack", "--affinity", "db",
		"--anti-affinity", "label=tier=db,topology=node.labels.zone,preferred=true", "--toleration", "gpu=yes", "--toleration", "*",
		"--generic-resource", "gpu=2", "--generic-resource", "nic=eth7", "--max-unavailable", "3", "--restart-max-delay", "1m",
		"--update-monitor", "9s", "--update-failure-action", "rollback", "--update-max-failure-ratio", "0.25", "--update-progress-deadline", "2m",
		"--rollback-parallelism", "3", "--rollback-failure-action", "continue")
	got, err := f.Spec("i", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &typesv1.ServiceSpec{
		Annotations: got.Annotations, Mode: got.Mode, MaxUnavailable: &three,
		Update: &typesv1.UpdateConfig{
			Monitor: durationpb.New(9e9), FailureAction: typesv1.FailureAction_FAILURE_ACTION_ROLLBACK, MaxFailureRatio: 0.25, ProgressDeadline: durationpb.New(120e9),
		},
		Rollback: &typesv1.UpdateConfig{Parallelism: &three, FailureAction: typesv1.FailureAction_FAILURE_ACTION_CONTINUE},
		Task: &typesv1.TaskSpec{
			Container: &typesv1.ContainerSpec{Image: "i"}, Restart: &typesv1.RestartPolicy{MaxDelay: durationpb.New(60e9)},
			Resources: &typesv1.ResourceRequirements{Reservations: &typesv1.Resources{
				Generic: []*typesv1.GenericResource{{Kind: "gpu", Discrete: 2}, {Kind: "nic", Named: "eth7"}},
			}},
			Placement: &typesv1.Placement{
				Constraints: []string{"node.labels.disk == ssd", "node.role in (worker, manager)"},
				Preferences: []*typesv1.PlacementPreference{{Spread: "node.labels.zone"}}, MaxReplicas: 2,
				Strategy: typesv1.PlacementStrategy_PLACEMENT_STRATEGY_BINPACK,
				Affinities: []*typesv1.Affinity{
					{Service: "db"}, {Label: "tier=db", Topology: "node.labels.zone", Preferred: true, Anti: true},
				},
				Tolerations: []*typesv1.Toleration{{Key: "gpu", Value: "yes"}, {}},
			},
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Fatal(diff)
	}
	got.Task.Placement.Affinities[0].Service = "db-id" // as admitted
	ids := func(name string) (string, error) { return name + "-id", nil }
	change := flagsOf(t, (*spec.Flags).Update, "--constraint-rm", "node.labels.disk==ssd", "--constraint-add", "node.labels.gpu exists",
		"--placement-pref-rm", "spread=node.labels.zone", "--affinity-rm", "db", "--anti-affinity-rm", "label=tier=db", "--toleration-rm", "*",
		"--generic-resource-rm", "nic", "--generic-resource-add", "gpu=1", "--strategy", "default", "--replicas-max-per-node", "0", "--hold", "--resume")
	if err := change.Change(got, ids, ids); err != nil {
		t.Fatal(err)
	}
	want.HoldUpdate, want.ResumeUpdate = true, 1
	want.Task.Resources.Reservations.Generic = []*typesv1.GenericResource{{Kind: "gpu", Discrete: 1}}
	want.Task.Placement = &typesv1.Placement{
		Constraints: []string{"node.role in (worker, manager)", "node.labels.gpu exists"}, Tolerations: []*typesv1.Toleration{{Key: "gpu", Value: "yes"}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestFaultsOfPlacementAreToldAtOnce(t *testing.T) {
	f := flagsOf(t, (*spec.Flags).Create, "--name", "w", "--placement-pref", "zone", "--affinity", "near=db", "--strategy", "random",
		"--generic-resource", "gpu", "--update-failure-action", "cry", "--update-max-failure-ratio", "much", "--rollback-order", "never")
	_, err := f.Spec("i", nil)
	for _, part := range []string{"placement-pref", "affinity", "strategy", "generic-resource", "update-failure-action", "update-max-failure-ratio", "rollback-order"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v says nothing of %s", err, part)
		}
	}
	ids := func(name string) (string, error) { return name, nil }
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	u := spec.New(set, nil, nil)
	u.Update()
	if err := set.Parse([]string{"--constraint-rm", "node.role==worker", "--toleration-rm", "x", "--affinity-rm", "db"}); err != nil {
		t.Fatal(err)
	}
	err = u.Change(&typesv1.ServiceSpec{Annotations: &typesv1.Annotations{}, Task: &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{}}}, ids, ids)
	if err == nil || strings.Count(err.Error(), "to remove") != 3 {
		t.Errorf("removing what is not there: %v", err)
	}
}

func TestTaints(t *testing.T) {
	const noSchedule, noExecute = typesv1.TaintEffect_TAINT_EFFECT_NO_SCHEDULE, typesv1.TaintEffect_TAINT_EFFECT_NO_EXECUTE
	got, err := spec.Taints([]string{"gpu=yes", "old:no-execute", "gpu=no"}, []*typesv1.Taint{{Key: "kept", Effect: noSchedule}})
	want := []*typesv1.Taint{{Key: "kept", Effect: noSchedule}, {Key: "old", Effect: noExecute}, {Key: "gpu", Value: "no", Effect: noSchedule}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	got, err = spec.WithoutTaints([]string{"gpu", "old:no-execute"}, got)
	if diff := cmp.Diff(want[:1], got, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	for _, bad := range []string{"", "=x", "a:never"} {
		if _, err := spec.Taints([]string{bad}, nil); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := spec.WithoutTaints([]string{"kept:no-execute"}, got); err == nil {
		t.Error("a taint of another effect was removed")
	}
}
