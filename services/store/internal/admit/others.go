package admit

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Defaults and bounds of the cluster's settings.
const (
	historyLimit    = 5
	certificateLife = 72 * time.Hour
	leastLife       = 5 * time.Minute
	leastKeyLife    = 10 * time.Minute
	grace           = 90 * 24 * time.Hour
	firstPort       = 30000
	lastPort        = 32767
)

// Node checks the spec of a machine. Old is the present one.
func Node(in, old *typesv1.NodeSpec) (*typesv1.NodeSpec, *Faults) {
	f := &Faults{}
	spec := proto.CloneOf(in)
	if spec == nil {
		spec = &typesv1.NodeSpec{}
	}
	f.labels(spec.GetAnnotations().GetLabels())
	f.Check(spec.GetAnnotations().GetName() == "", "name", "a machine is called by its hostname or id")
	if spec.GetAvailability() == typesv1.Availability_AVAILABILITY_UNSPECIFIED {
		spec.Availability = typesv1.Availability_AVAILABILITY_ACTIVE
	}
	_, known := typesv1.Availability_name[int32(spec.GetAvailability())]
	f.Check(known, "availability", "%d is not known", spec.GetAvailability())
	f.taints(spec.GetTaints())
	if spec.GetRole() == typesv1.NodeRole_NODE_ROLE_UNSPECIFIED {
		spec.Role = old.GetRole()
	}
	if spec.GetRole() != old.GetRole() {
		f.AddKind(errs.Precondition, "role", "a machine's role comes with the token that it joined with; "+
			"remove it and join it again with the other token")
	}
	return spec, f
}

func (f *Faults) taints(taints []*typesv1.Taint) {
	f.Check(len(taints) <= maxRules, "taints", "has %d entries, at most %d are allowed", len(taints), maxRules)
	for i, t := range taints {
		f.Check(t.GetKey() != "", fmt.Sprintf("taints[%d].key", i), "is missing")
		if t.GetEffect() == typesv1.TaintEffect_TAINT_EFFECT_UNSPECIFIED {
			t.Effect = typesv1.TaintEffect_TAINT_EFFECT_NO_SCHEDULE
		}
		_, known := typesv1.TaintEffect_name[int32(t.GetEffect())]
		f.Check(known, fmt.Sprintf("taints[%d].effect", i), "%d is not known", t.GetEffect())
	}
}

// Cluster checks the settings of the cluster. Old are the present ones.
func Cluster(in, old *typesv1.ClusterSpec) (*typesv1.ClusterSpec, *Faults) {
	f := &Faults{}
	spec := proto.CloneOf(in)
	if spec == nil {
		spec = &typesv1.ClusterSpec{}
	}
	if spec.Annotations == nil {
		spec.Annotations = old.GetAnnotations()
	}
	f.name(spec.GetAnnotations())
	if spec.GetTaskHistoryLimit() == 0 {
		spec.TaskHistoryLimit = historyLimit
	}
	f.Check(spec.GetTaskHistoryLimit() > 0 && spec.GetTaskHistoryLimit() <= 1000, "task_history_limit", "%d is not from 1 to 1000", spec.GetTaskHistoryLimit())
	if spec.CertificateLife == nil {
		spec.CertificateLife = durationpb.New(certificateLife)
	}
	f.Check(spec.GetCertificateLife().AsDuration() >= leastLife, "certificate_life", "%s is below the least, %s", spec.GetCertificateLife().AsDuration(), leastLife)
	if spec.CertificateGrace == nil {
		spec.CertificateGrace = durationpb.New(grace)
	}
	f.duration("certificate_grace", spec.GetCertificateGrace())
	if spec.GetFirstPort() == 0 {
		spec.FirstPort = firstPort
	}
	if spec.GetLastPort() == 0 {
		spec.LastPort = lastPort
	}
	f.Check(spec.GetLastPort() <= 65535, "last_port", "%d is not from 1 to 65535", spec.GetLastPort())
	f.Check(spec.GetFirstPort() <= spec.GetLastPort(), "first_port", "%d is above last_port, %d", spec.GetFirstPort(), spec.GetLastPort())
	f.scheduling(spec.GetScheduling())
	_, known := typesv1.Dataplane_name[int32(spec.GetDataplane())]
	f.Check(known, "dataplane", "%d is not known", spec.GetDataplane())
	_, known = typesv1.UserNamespace_name[int32(spec.GetContainers().GetUserNamespace())]
	f.Check(known, "containers.user_namespace", "%d is not known", spec.GetContainers().GetUserNamespace())
	f.logDriver(spec.GetLogDriver())
	if e := spec.GetEncryption(); e.GetKeyLife() != nil {
		f.Check(e.GetKeyLife().AsDuration() >= leastKeyLife, "encryption.key_life", "%s is below the least, %s", e.GetKeyLife().AsDuration(), leastKeyLife)
	}
	f.Check(spec.GetEncryption().GetKeyRotation() >= old.GetEncryption().GetKeyRotation(), "encryption.key_rotation", "%d is below %d and only rises",
		spec.GetEncryption().GetKeyRotation(), old.GetEncryption().GetKeyRotation())
	f.Check(spec.GetFeatureLevel() >= old.GetFeatureLevel(), "feature_level", "%d is below %d and only rises", spec.GetFeatureLevel(), old.GetFeatureLevel())
	return spec, f
}

// scheduling checks how tasks are placed and replaced.
func (f *Faults) scheduling(c *typesv1.SchedulingConfig) {
	_, known := typesv1.PlacementStrategy_name[int32(c.GetStrategy())]
	f.Check(known, "scheduling.strategy", "%d is not known", c.GetStrategy())
	if c != nil && c.MassLossPercent != nil {
		f.Check(c.GetMassLossPercent() >= 1 && c.GetMassLossPercent() <= 100, "scheduling.mass_loss_percent", "%d is not from 1 to 100", c.GetMassLossPercent())
	}
	f.duration("scheduling.mass_loss_window", c.GetMassLossWindow())
	f.duration("scheduling.flap_window", c.GetFlapWindow())
}

// PortRange is the range for published ports, also when the cluster does not say.
func PortRange(c *typesv1.ClusterSpec) (first, last uint32) {
	first, last = c.GetFirstPort(), c.GetLastPort()
	if first == 0 {
		first = firstPort
	}
	if last == 0 {
		last = lastPort
	}
	return first, last
}
