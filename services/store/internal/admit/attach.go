package admit

import (
	"path"
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// maxNamespace bounds what names a network namespace.
const maxNamespace = 1024

// attached checks a container that another tool runs. There is nothing to make of it, so it has nothing but its namespace.
// Any namespace of any node can be named, so it takes the cluster's leave to share those.
func (f *Faults) attached(policy *typesv1.ContainerPolicy, c *typesv1.ContainerSpec) {
	a := c.GetAttach()
	if !policy.GetAllowHostNamespaces() {
		f.AddKind(errs.Precondition, "attach", namespacesOff)
	}
	f.Check((a.GetPath() == "") != (a.GetContainer() == ""), "attach", "names either the path of a network namespace or a container of containerd")
	f.Check(len(a.GetPath())+len(a.GetContainer()) <= maxNamespace, "attach", "has more than %d bytes", maxNamespace)
	f.Check(a.GetPath() == "" || path.IsAbs(a.GetPath()) && path.Clean(a.GetPath()) == a.GetPath() && !strings.ContainsRune(a.GetPath(), 0),
		"attach.path", "%q is no absolute path without detours", a.GetPath())
	f.Check(a.GetContainer() == "" || regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`).MatchString(a.GetContainer()), "attach.container", "%q is no id of a container", a.GetContainer())
	f.Check(proto.Equal(c, &typesv1.ContainerSpec{Attach: a}), "attach", "takes no image and no option of a container: another tool runs it")
}

// guest checks the service that stands for such a container: one task, on one network that takes it, which is never replaced by itself.
// Whoever calls it by its name has its own address, for what answers there is known to nobody.
func (f *Faults) guest(s *state.Snapshot, spec *typesv1.ServiceSpec) {
	if spec.GetTask().GetContainer().GetAttach() == nil {
		return
	}
	t, e := spec.GetTask(), spec.GetEndpoint()
	replicated, ok := spec.GetMode().(*typesv1.ServiceSpec_Replicated)
	f.Check(ok && replicated.Replicated.GetReplicas() <= 1, "replicas", "an attached container is one: the mode is replicated, with 1 or 0")
	f.Check(t.GetRestart().GetCondition() == typesv1.RestartCondition_RESTART_CONDITION_NONE, "restart.condition", "an attached container is not started again: use none")
	f.Check(e.GetMode() == typesv1.EndpointMode_ENDPOINT_MODE_DNSRR, "endpoint.mode", "an attached container has no virtual address: use dnsrr")
	f.Check(len(e.GetPorts()) == 0, "ports", "of an attached container cannot be published")
	f.Check(t.GetResources().GetLimits() == nil && t.GetResources().GetReservations() == nil, "resources", "of an attached container are another tool's")
	f.Check(spec.GetAutoscale() == nil, "autoscale", "is not for an attached container")
	f.Check(len(t.GetNetworks()) == 1, "networks", "an attached container is on exactly one network")
	for _, a := range t.GetNetworks() {
		if n := s.Network(a.GetTarget()); n != nil && !n.GetSpec().GetAttachable() {
			f.AddKind(errs.Precondition, "networks", "network %q takes no containers of other tools; one that does is made with --attachable",
				n.GetSpec().GetAnnotations().GetName())
		}
	}
}
