package decide_test

import (
	"maps"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// nodeOptions sets what a machine has and a person says of it.
func (m *sim) nodeOptions(n *typesv1.Node, opts map[string]string) {
	d := n.GetStatus().GetDescription()
	if users, ok := opts["users"]; ok {
		d.UserNamespaces, d.UserNamespacesReason = users == "on", strings.ReplaceAll(strings.TrimPrefix(users, "on"), "_", " ")
	}
	for k, v := range opts {
		if label, ok := strings.CutPrefix(k, "label."); ok {
			if n.Spec.Annotations == nil {
				n.Spec.Annotations = &typesv1.Annotations{}
			}
			n.Spec.Annotations.Labels = with(n.GetSpec().GetAnnotations().GetLabels(), label, v)
		}
		if label, ok := strings.CutPrefix(k, "engine."); ok {
			d.Labels = with(d.GetLabels(), label, v)
		}
	}
	if t, ok := opts["taint"]; ok {
		n.Spec.Taints = nil
		if parts := strings.Split(t, ":"); len(parts) == 3 {
			n.Spec.Taints = []*typesv1.Taint{{Key: parts[0], Value: parts[1], Effect: map[string]typesv1.TaintEffect{
				"no-schedule": typesv1.TaintEffect_TAINT_EFFECT_NO_SCHEDULE, "avoid": typesv1.TaintEffect_TAINT_EFFECT_PREFER_NO_SCHEDULE,
				"no-execute": typesv1.TaintEffect_TAINT_EFFECT_NO_EXECUTE}[parts[2]]}}
		}
	}
	if g, ok := opts["generic"]; ok {
		d.Generic = m.generic(g)
	}
	if mem, ok := opts["memory"]; ok {
		d.MemoryBytes = m.size(mem)
	}
	if cpus, ok := opts["cpus"]; ok {
		d.NanoCpus = m.nano(cpus)
	}
	if disk, ok := opts["disk"]; ok {
		d.DiskBytes = m.size(disk)
	}
	if opts["role"] == "manager" {
		n.Spec.Role = typesv1.NodeRole_NODE_ROLE_MANAGER
	}
	if name, ok := opts["hostname"]; ok {
		d.Hostname = name
	}
	if ip, ok := opts["ip"]; ok {
		n.Status.Addresses = []string{ip}
	}
	if p, ok := opts["pids"]; ok {
		d.Pids = m.number(p, 0)
	}
	if opts["stamp"] != "" {
		n.Status.Since = timestamppb.New(m.now)
	}
}

func with(labels map[string]string, k, v string) map[string]string {
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if labels[k] = v; v == "" {
		delete(labels, k)
	}
	return labels
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
	m.nodeOptions(n, opts)
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
