package spec

import (
	"fmt"
	"strings"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// NodeChange is what the flags of `node update` say.
type NodeChange struct {
	Name                    string
	AddLabels, RemoveLabels []string
	AddTaints, RemoveTaints []string
	Availability, Role      string
}

// Apply changes a node's spec; all faults are told at once.
func (n *NodeChange) Apply(s *typesv1.NodeSpec) error {
	var faults errs.Collector
	if s.Annotations == nil {
		s.Annotations = &typesv1.Annotations{}
	}
	labels, err := Labels(n.AddLabels, s.Annotations.Labels)
	faults.Merge("label-add", err)
	for _, key := range n.RemoveLabels {
		_, ok := labels[key]
		faults.Check(ok, "label-rm", "there is no label %q to remove", key)
		delete(labels, key)
	}
	s.Annotations.Labels = labels
	taints, err := WithoutTaints(n.RemoveTaints, s.Taints)
	faults.Merge("taint-rm", err)
	s.Taints, err = Taints(n.AddTaints, taints)
	faults.Merge("taint-add", err)
	if n.Availability != "" {
		v, ok := typesv1.Availability_value["AVAILABILITY_"+strings.ToUpper(n.Availability)]
		faults.Check(ok && v > 0, "availability", "%q is not active, pause or drain", n.Availability)
		s.Availability = typesv1.Availability(v)
	}
	if n.Role != "" {
		v, ok := typesv1.NodeRole_value["NODE_ROLE_"+strings.ToUpper(n.Role)]
		faults.Check(ok && v > 0, "role", "%q is not worker or manager", n.Role)
		s.Role = typesv1.NodeRole(v)
	}
	return faults.Err(fmt.Sprintf("update node %q", n.Name))
}
