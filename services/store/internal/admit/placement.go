package admit

import (
	"fmt"
	"strings"

	"github.com/shoalproject/shoal/internal/constraint"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// maxRules is how many constraints, preferences, affinities and tolerations of each a spec may have.
const maxRules = 50

func (f *Faults) placement(s *state.Snapshot, p *typesv1.Placement) {
	for name, n := range map[string]int{"constraints": len(p.GetConstraints()), "preferences": len(p.GetPreferences()),
		"affinities": len(p.GetAffinities()), "tolerations": len(p.GetTolerations())} {
		f.Check(n <= maxRules, "placement."+name, "has %d entries, at most %d are allowed", n, maxRules)
	}
	for i, text := range p.GetConstraints() {
		if _, err := constraint.Parse(text); err != nil {
			f.Add(fmt.Sprintf("placement.constraints[%d]", i), "%s", err)
		}
	}
	for i, pref := range p.GetPreferences() {
		f.labelKey(fmt.Sprintf("placement.preferences[%d]", i), pref.GetSpread())
	}
	for i, a := range p.GetAffinities() {
		f.affinity(s, fmt.Sprintf("placement.affinities[%d]", i), a)
	}
	_, known := typesv1.PlacementStrategy_name[int32(p.GetStrategy())]
	f.Check(known, "placement.strategy", "%d is not known", p.GetStrategy())
	f.Check(p.GetMaxReplicas() <= MaxReplicas, "placement.max_replicas", "%d is not from 0 to %d", p.GetMaxReplicas(), MaxReplicas)
}

// labelKey checks what tasks are spread over: the labels of nodes.
func (f *Faults) labelKey(field, key string) {
	if !strings.HasPrefix(key, constraint.NodeLabels) && !strings.HasPrefix(key, constraint.EngineLabels) {
		f.Add(field, "%q must be %sNAME or %sNAME", key, constraint.NodeLabels, constraint.EngineLabels)
	} else if err := constraint.ValidKey(key); err != nil {
		f.Add(field, "%s", err)
	}
}

func (f *Faults) affinity(s *state.Snapshot, field string, a *typesv1.Affinity) {
	switch service, label := a.GetService(), a.GetLabel(); {
	case service == "" && label == "":
		f.Add(field, "names neither a service nor a label")
	case service != "" && label != "":
		f.Add(field, "names both a service and a label")
	case service != "":
		if svc := s.ServiceByName(service); svc != nil {
			a.Service = svc.GetMeta().GetId() // one that comes later is found by its name
		}
	case strings.HasPrefix(label, "="):
		f.Add(field, "%q names no label", label)
	}
	if t := a.GetTopology(); t != "" {
		f.labelKey(field+".topology", t)
	}
}

// rebalance checks when running tasks are moved for the sake of balance.
func (f *Faults) rebalance(s *state.Snapshot, id string, spec *typesv1.ServiceSpec) {
	r := spec.GetRebalance()
	if r == nil {
		return
	}
	if spec.GetReplicated() == nil && (r.GetAlways() || r.GetRequest() != 0) {
		f.Add("rebalance", "is for replicated services, and the mode is %s", ModeName(spec))
	}
	if node := r.GetRequestNodeId(); node != "" && s.Node(node) == nil && r.GetRequest() != s.Service(id).GetSpec().GetRebalance().GetRequest() {
		f.AddKind(errs.Precondition, "rebalance.request_node_id", "no node %q", node) // of an earlier request it may be gone
	}
}

func (f *Faults) generic(field string, list []*typesv1.GenericResource) {
	for i, g := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		f.Check(g.GetKind() != "", at+".kind", "is missing")
		f.Check(g.GetNamed() == "" || g.GetDiscrete() == 0, at, "%q asks for a piece and for an amount", g.GetKind())
		f.Check(g.GetNamed() != "" || g.GetDiscrete() > 0, at, "%q must be an amount from 1", g.GetKind())
	}
}
