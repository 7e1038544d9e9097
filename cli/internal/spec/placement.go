package spec

import (
	"slices"
	"strconv"
	"strings"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// placement defines the flags of one value that say where tasks may run.
func (f *Flags) placement() {
	f.set.String("replicas-max-per-node", "", "tasks of the service on one node; 0: no limit")
	f.set.String("strategy", "", "which of the nodes that fit: spread, binpack or default (the cluster's)")
}

// lists defines the flags that may be given many times; for an update those that add and those that remove.
func (f *Flags) lists(update bool) {
	for _, l := range []struct{ name, usage string }{
		{"constraint", "what a node must be: node.labels.disk==ssd, 'node.role in (worker)', 'node.labels.gpu exists'"},
		{"placement-pref", "spread tasks evenly: spread=node.labels.zone"},
		{"affinity", "run near tasks of a service: NAME, or service=… or label=…, with topology=node.labels.zone, preferred=true"},
		{"anti-affinity", "run far from tasks of a service, as --affinity"},
		{"toleration", "run on nodes in spite of a taint: KEY, KEY=VALUE, or * for all"},
		{"generic-resource", "what a node must have free: gpu=2, or gpu=GPU-3f2a for one piece"},
	} {
		if !update {
			f.set.StringArray(l.name, nil, l.usage)
			continue
		}
		f.set.StringArray(l.name+"-add", nil, "add: "+l.usage)
		f.set.StringArray(l.name+"-rm", nil, "remove a "+l.name)
	}
}

// applyPlacement sets what has one value.
func (f *Flags) applyPlacement(t *typesv1.TaskSpec) {
	if !f.any("replicas-max-per-node", "strategy") {
		return
	}
	if t.Placement == nil {
		t.Placement = &typesv1.Placement{}
	}
	if f.set.Changed("replicas-max-per-node") {
		t.Placement.MaxReplicas, _ = f.count("replicas-max-per-node")
	}
	if f.set.Changed("strategy") {
		t.Placement.Strategy = choice(f, "strategy", []string{"spread", "binpack", "default"}, map[string]typesv1.PlacementStrategy{
			"spread": typesv1.PlacementStrategy_PLACEMENT_STRATEGY_SPREAD, "binpack": typesv1.PlacementStrategy_PLACEMENT_STRATEGY_BINPACK,
			"default": typesv1.PlacementStrategy_PLACEMENT_STRATEGY_UNSPECIFIED,
		})
	}
}

// addRules adds what the list flags say; suffix is "-add" for an update.
func (f *Flags) addRules(t *typesv1.TaskSpec, suffix string) {
	if f.any("constraint"+suffix, "placement-pref"+suffix, "affinity"+suffix, "anti-affinity"+suffix, "toleration"+suffix) && t.Placement == nil {
		t.Placement = &typesv1.Placement{}
	}
	p := t.Placement
	for _, text := range f.list("constraint" + suffix) {
		if !slices.ContainsFunc(p.Constraints, func(c string) bool { return tight(c) == tight(text) }) {
			p.Constraints = append(p.Constraints, text)
		}
	}
	for _, text := range f.list("placement-pref" + suffix) {
		if label, ok := f.spread("placement-pref"+suffix, text); ok {
			p.Preferences = append(p.Preferences, &typesv1.PlacementPreference{Spread: label})
		}
	}
	for _, anti := range []bool{false, true} {
		for _, text := range f.list(affinityFlag(anti) + suffix) {
			a, err := ParseAffinity(text, anti)
			f.faults.Merge(affinityFlag(anti)+suffix, err)
			if err == nil {
				p.Affinities = append(p.Affinities, a)
			}
		}
	}
	for _, text := range f.list("toleration" + suffix) {
		tol := parseToleration(text)
		if !slices.ContainsFunc(p.Tolerations, func(t *typesv1.Toleration) bool { return sameToleration(t, tol) }) {
			p.Tolerations = append(p.Tolerations, tol)
		}
	}
	f.addGeneric(t, "generic-resource"+suffix)
}

// tight is a constraint without blanks, so that `a == b` and `a==b` are the same.
func tight(constraint string) string { return strings.Join(strings.Fields(constraint), "") }

func affinityFlag(anti bool) string {
	if anti {
		return "anti-affinity"
	}
	return "affinity"
}

// spread reads `spread=LABEL`, the only kind of preference there is.
func (f *Flags) spread(flag, text string) (string, bool) {
	kind, label, ok := strings.Cut(text, "=")
	ok = ok && kind == "spread" && label != ""
	f.faults.Check(ok, flag, "%q is not spread=LABEL, such as spread=node.labels.zone", text)
	return label, ok
}

// ParseAffinity reads NAME of a service, or `service=…|label=…[,topology=…][,preferred=true]`.
func ParseAffinity(text string, anti bool) (*typesv1.Affinity, error) {
	if text != "" && !strings.Contains(text, "=") {
		return &typesv1.Affinity{Service: text, Anti: anti}, nil
	}
	fields, err := parseFields(text, "service", "label", "topology", "preferred")
	if err != nil {
		return nil, err
	}
	a := &typesv1.Affinity{Service: fields["service"], Label: fields["label"], Topology: fields["topology"], Anti: anti}
	if p, ok := fields["preferred"]; ok {
		if a.Preferred, err = strconv.ParseBool(p); err != nil {
			return nil, errs.New(errs.Invalid, "%q: preferred is %q, not true or false", text, p)
		}
	}
	return a, nil
}

func parseToleration(text string) *typesv1.Toleration {
	if text == "*" {
		return &typesv1.Toleration{}
	}
	key, value, _ := strings.Cut(text, "=")
	return &typesv1.Toleration{Key: key, Value: value}
}

func sameToleration(a, b *typesv1.Toleration) bool {
	return a.GetKey() == b.GetKey() && a.GetValue() == b.GetValue()
}

// addGeneric adds generic resources to the reservations; an amount takes the place of the kind's amount before.
func (f *Flags) addGeneric(t *typesv1.TaskSpec, flag string) {
	for _, text := range f.list(flag) {
		kind, what, ok := strings.Cut(text, "=")
		if !ok || kind == "" || what == "" {
			f.faults.Add(flag, "%q is not KIND=AMOUNT or KIND=PIECE", text)
			continue
		}
		r := reservations(t)
		g := &typesv1.GenericResource{Kind: kind, Named: what}
		if n, err := strconv.ParseInt(what, 10, 64); err == nil {
			g = &typesv1.GenericResource{Kind: kind, Discrete: n}
		}
		r.Generic = slices.DeleteFunc(r.Generic, func(old *typesv1.GenericResource) bool {
			return old.GetKind() == g.GetKind() && old.GetNamed() == g.GetNamed()
		})
		r.Generic = append(r.Generic, g)
	}
}

func reservations(t *typesv1.TaskSpec) *typesv1.Resources {
	if t.Resources == nil {
		t.Resources = &typesv1.ResourceRequirements{}
	}
	if t.Resources.Reservations == nil {
		t.Resources.Reservations = &typesv1.Resources{}
	}
	return t.Resources.Reservations
}

// changeRules removes and adds what the list flags of an update say.
func (f *Flags) changeRules(t *typesv1.TaskSpec, services Lookup) {
	if f.any("constraint-rm", "placement-pref-rm", "affinity-rm", "anti-affinity-rm", "toleration-rm") && t.Placement == nil {
		t.Placement = &typesv1.Placement{}
	}
	p := t.Placement
	for _, text := range f.list("constraint-rm") {
		p.Constraints = drop(f, "constraint-rm", text, p.Constraints, func(c string) bool { return tight(c) == tight(text) })
	}
	for _, text := range f.list("placement-pref-rm") {
		if label, ok := f.spread("placement-pref-rm", text); ok {
			p.Preferences = drop(f, "placement-pref-rm", text, p.Preferences, func(p *typesv1.PlacementPreference) bool { return p.GetSpread() == label })
		}
	}
	for _, anti := range []bool{false, true} {
		for _, text := range f.list(affinityFlag(anti) + "-rm") {
			f.dropAffinity(p, text, anti, services)
		}
	}
	for _, text := range f.list("toleration-rm") {
		tol := parseToleration(text)
		p.Tolerations = drop(f, "toleration-rm", text, p.Tolerations, func(t *typesv1.Toleration) bool { return sameToleration(t, tol) })
	}
	for _, kind := range f.list("generic-resource-rm") {
		r := reservations(t)
		r.Generic = drop(f, "generic-resource-rm", kind, r.Generic, func(g *typesv1.GenericResource) bool {
			return g.GetKind() == kind || g.GetNamed() != "" && g.GetKind()+"="+g.GetNamed() == kind
		})
	}
	f.addRules(t, "-add")
}

// dropAffinity removes those to a service, by its name or id, or to a label.
func (f *Flags) dropAffinity(p *typesv1.Placement, text string, anti bool, services Lookup) {
	flag := affinityFlag(anti) + "-rm"
	gone, err := ParseAffinity(text, anti)
	if err != nil {
		f.faults.Merge(flag, err)
		return
	}
	id := gone.GetService()
	if id != "" {
		if found, err := services(id); err == nil { // one that is gone is known by what the spec has
			id = found
		}
	}
	p.Affinities = drop(f, flag, text, p.Affinities, func(a *typesv1.Affinity) bool {
		return a.GetAnti() == anti && a.GetLabel() == gone.GetLabel() && (a.GetService() == id || a.GetService() == gone.GetService())
	})
}

// drop removes what matches; that there is nothing is a fault.
func drop[T any](f *Flags, flag, text string, list []T, match func(T) bool) []T {
	before := len(list)
	list = slices.DeleteFunc(list, match)
	f.faults.Check(len(list) < before, flag, "there is no %q to remove", text)
	return list
}
