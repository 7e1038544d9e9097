package decide_test

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

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
		task.Networks = append(task.Networks, &typesv1.NetworkAttachment{Target: n, Addresses: plusList(opts["fixed"])})
	}
	update := &typesv1.UpdateConfig{Delay: durationpb.New(m.duration(cmpOr(opts["delay"], "0s")))}
	if p, ok := opts["parallelism"]; ok {
		update.Parallelism = proto.Uint64(uint64(m.number(p, 1)))
	}
	if opts["order"] == "start-first" {
		update.Order = typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST
	}
	m.updateOptions(update, opts)
	m.taskOptions(task, opts)
	s := &typesv1.Service{Meta: &typesv1.Meta{Id: name}, SpecVersion: 1, SpecHash: []byte("1"), Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: cmpOr(opts["name"], name)}, Task: task, Update: update,
		Mode: replicas(uint64(m.number(opts["replicas"], 1)))}}
	m.serviceOptions(s, opts)
	if old := m.s.Service(name); old != nil { // an update: the replicas stay unless they are named
		s.Meta, s.UpdateStatus, s.SpecVersion = proto.CloneOf(old.GetMeta()), old.GetUpdateStatus(), old.GetSpecVersion()+1
		s.SpecHash = fmt.Append(nil, s.GetSpecVersion())
		s.SpecHistory = append([]*typesv1.SpecRecord{{Version: old.GetSpecVersion(), Hash: old.GetSpecHash(), Task: old.GetSpec().GetTask()}}, old.GetSpecHistory()...)
		m.backTo(s, uint64(m.number(opts["rollback-to"], 0)))
		s.RebalanceStatus = old.GetRebalanceStatus()
		s.JobStatus, s.DependencyStatus, s.Scale = old.GetJobStatus(), old.GetDependencyStatus(), old.GetScale()
		if opts["same-spec"] != "" {
			s.SpecVersion, s.SpecHash, s.SpecHistory, s.Spec.Task = old.GetSpecVersion(), old.GetSpecHash(), old.GetSpecHistory(), old.GetSpec().GetTask()
			s.RolledBackTo = old.GetRolledBackTo()
		}
		if _, ok := opts["replicas"]; !ok && opts["mode"] == "" {
			s.Spec.Mode = replicas(state.Replicas(old))
		}
	}
	m.change(state.Wrap(s))
}

// backTo is what the store makes of a rollback by hand.
func (m *sim) backTo(s *typesv1.Service, version uint64) {
	for _, r := range s.GetSpecHistory() {
		if r.GetVersion() == version {
			s.SpecHash, s.Spec.Task, s.RolledBackTo = r.GetHash(), r.GetTask(), version
		}
	}
}

func (m *sim) updateOptions(u *typesv1.UpdateConfig, opts map[string]string) {
	if d, ok := opts["monitor"]; ok {
		u.Monitor = durationpb.New(m.duration(d))
	}
	if d, ok := opts["progress"]; ok {
		u.ProgressDeadline = durationpb.New(m.duration(d))
	}
	u.FailureAction = map[string]typesv1.FailureAction{"continue": typesv1.FailureAction_FAILURE_ACTION_CONTINUE,
		"rollback": typesv1.FailureAction_FAILURE_ACTION_ROLLBACK}[opts["action"]]
	if r, ok := opts["ratio"]; ok {
		f, err := strconv.ParseFloat(r, 32)
		if err != nil {
			m.fault("%v", err)
		}
		u.MaxFailureRatio = float32(f)
	}
}

func (m *sim) taskOptions(t *typesv1.TaskSpec, opts map[string]string) {
	if t.Placement == nil {
		t.Placement = &typesv1.Placement{}
	}
	p := t.GetPlacement()
	if c, ok := opts["constraint"]; ok {
		p.Constraints = strings.Split(strings.ReplaceAll(c, "_", " "), "+")
	}
	if c, ok := opts["prefer"]; ok {
		for _, key := range strings.Split(c, "+") {
			p.Preferences = append(p.Preferences, &typesv1.PlacementPreference{Spread: key})
		}
	}
	p.MaxReplicas = uint64(m.number(opts["max-replicas"], 0))
	if opts["strategy"] == "binpack" {
		p.Strategy = typesv1.PlacementStrategy_PLACEMENT_STRATEGY_BINPACK
	}
	if k, ok := opts["tolerate"]; ok {
		p.Tolerations = []*typesv1.Toleration{{Key: k}}
	}
	for _, a := range []struct {
		option          string
		anti, preferred bool
	}{{"near", false, false}, {"far", true, false}, {"rather-near", false, true}, {"rather-far", true, true}} {
		if of, ok := opts[a.option]; ok {
			what, topology, _ := strings.Cut(of, "@")
			x := &typesv1.Affinity{Service: what, Anti: a.anti, Preferred: a.preferred, Topology: topology}
			if label, ok := strings.CutPrefix(what, "label:"); ok {
				x.Service, x.Label = "", strings.ReplaceAll(label, ":", "=")
			}
			p.Affinities = append(p.Affinities, x)
		}
	}
	if g, ok := opts["generic"]; ok {
		t.Resources.Reservations.Generic = m.generic(g)
	}
	t.Resources.Reservations.Pids, t.Resources.Reservations.DiskBytes = m.number(opts["pids"], 0), m.size(cmpOr(opts["disk"], "0"))
	if mem, ok := opts["limit-memory"]; ok {
		t.Resources.Limits = &typesv1.Resources{MemoryBytes: m.size(mem)}
	}
	if d, ok := opts["max-delay"]; ok {
		t.Restart.MaxDelay = durationpb.New(m.duration(d))
	}
	t.Container = &typesv1.ContainerSpec{Image: opts["image"]}
	if opts["users"] == "private" {
		t.Container.Privileges = &typesv1.Privileges{UserNamespace: typesv1.UserNamespace_USER_NAMESPACE_PRIVATE}
	}
	for _, source := range plusList(opts["slot-volume"]) {
		t.Container.Mounts = append(t.Container.Mounts, &typesv1.Mount{Type: typesv1.MountType_MOUNT_TYPE_VOLUME, Source: source, Target: "/" + source,
			Volume: &typesv1.VolumeOptions{Scope: typesv1.VolumeScope_VOLUME_SCOPE_SLOT}})
	}
}

func (m *sim) serviceOptions(s *typesv1.Service, opts map[string]string) {
	for k, v := range opts {
		if label, ok := strings.CutPrefix(k, "label."); ok {
			s.Spec.Annotations.Labels = with(s.GetSpec().GetAnnotations().GetLabels(), label, v)
		}
	}
	switch opts["mode"] {
	case "global":
		s.Spec.Mode = &typesv1.ServiceSpec_Global{Global: &typesv1.Global{}}
	case "job":
		j := &typesv1.ReplicatedJob{TotalCompletions: proto.Uint64(uint64(m.number(opts["completions"], 1)))}
		if c, ok := opts["concurrent"]; ok {
			j.MaxConcurrent = proto.Uint64(uint64(m.number(c, 1)))
		}
		s.Spec.Mode, s.Spec.Update = &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: j}, nil
	case "global-job":
		s.Spec.Mode, s.Spec.Update = &typesv1.ServiceSpec_GlobalJob{GlobalJob: &typesv1.GlobalJob{}}, nil
	}
	if strings.HasSuffix(opts["mode"], "job") {
		s.Spec.Job = &typesv1.JobConfig{Deadline: durationpb.New(m.duration(cmpOr(opts["job-deadline"], "0s")))}
		if c, ok := opts["cron"]; ok {
			s.Spec.Job.Schedule = &typesv1.Schedule{Cron: strings.ReplaceAll(c, "_", " "), TimeZone: opts["zone"],
				CatchUp: durationpb.New(m.duration(cmpOr(opts["catch-up"], "0s"))), Concurrency: map[string]typesv1.ConcurrencyPolicy{
					"allow":   typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_ALLOW,
					"replace": typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_REPLACE}[opts["policy"]]}
		}
	}
	if n, ok := opts["max-unavailable"]; ok {
		s.Spec.MaxUnavailable = proto.Uint64(uint64(m.number(n, 1)))
	}
	s.Spec.HoldUpdate, s.Spec.ResumeUpdate = opts["hold"] != "", uint64(m.number(opts["resume"], 0))
	m.autoscale(s, opts)
	s.Spec.Priority = int32(m.number(opts["priority"], 0))
	if n, ok := opts["rollback-parallelism"]; ok {
		s.Spec.Rollback = &typesv1.UpdateConfig{Parallelism: proto.Uint64(uint64(m.number(n, 1))), Monitor: s.GetSpec().GetUpdate().GetMonitor(),
			Delay: durationpb.New(m.duration(cmpOr(opts["rollback-delay"], "0s")))}
		if opts["rollback-order"] == "start-first" {
			s.Spec.Rollback.Order = typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST
		}
		if opts["rollback-action"] == "continue" {
			s.Spec.Rollback.FailureAction = typesv1.FailureAction_FAILURE_ACTION_CONTINUE
		}
	}
	if text, ok := opts["rebalance"]; ok {
		s.Spec.Rebalance = &typesv1.Rebalance{Always: text == "always"}
	}
	if on := opts["depends-on"]; on != "" {
		s.Spec.DependsOn = strings.Split(on, "+")
	}
	for _, p := range strings.FieldsFunc(opts["host-port"], func(r rune) bool { return r == '+' }) {
		if s.Endpoint == nil {
			s.Endpoint = &typesv1.Endpoint{}
		}
		c := &typesv1.PortConfig{Protocol: typesv1.Protocol_PROTOCOL_TCP, TargetPort: 80, PublishMode: typesv1.PublishMode_PUBLISH_MODE_HOST}
		if p != "any" {
			c.PublishedPort = uint32(m.number(p, 0))
		}
		s.Endpoint.Ports = append(s.Endpoint.Ports, c)
	}
	if p, ok := opts["publish"]; ok {
		s.Endpoint = &typesv1.Endpoint{Ports: []*typesv1.PortConfig{{Protocol: typesv1.Protocol_PROTOCOL_TCP, TargetPort: 80, PublishedPort: uint32(m.number(p, 0))}}}
	}
}
