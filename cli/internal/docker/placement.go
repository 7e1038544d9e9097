package docker

import (
	"strings"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Placement says where.
type Placement struct {
	Constraints []string              `json:",omitempty"`
	Preferences []PlacementPreference `json:",omitempty"`
	MaxReplicas uint64                `json:",omitempty"`
	Platforms   []Platform            `json:",omitempty"`
	Strategy    string                `json:",omitempty"`
	Affinities  []Affinity            `json:",omitempty"`
	Tolerations []Toleration          `json:",omitempty"`
}

// PlacementPreference asks for even shares.
type PlacementPreference struct{ Spread SpreadOver }

// SpreadOver is the label over whose values shares are kept even.
type SpreadOver struct{ SpreadDescriptor string }

// Affinity binds tasks to the neighbourhood of others.
type Affinity struct {
	Service   string `json:",omitempty"`
	Label     string `json:",omitempty"`
	Anti      bool   `json:",omitempty"`
	Topology  string `json:",omitempty"`
	Preferred bool   `json:",omitempty"`
}

// Toleration lets tasks onto a node in spite of a taint.
type Toleration struct{ Key, Value string }

// Taint keeps tasks away from a machine.
type Taint struct {
	Key    string
	Value  string `json:",omitempty"`
	Effect string
}

// Platform is what an image or a machine runs on.
type Platform struct{ Architecture, OS string }

// GenericResource is an amount of something, or one piece of it.
type GenericResource struct {
	NamedResourceSpec    *NamedResource    `json:",omitempty"`
	DiscreteResourceSpec *DiscreteResource `json:",omitempty"`
}

// NamedResource is one piece.
type NamedResource struct{ Kind, Value string }

// DiscreteResource is an amount.
type DiscreteResource struct {
	Kind  string
	Value int64
}

func placementOf(p *typesv1.Placement) Placement {
	out := Placement{Constraints: p.GetConstraints(), MaxReplicas: p.GetMaxReplicas()}
	for _, pref := range p.GetPreferences() {
		out.Preferences = append(out.Preferences, PlacementPreference{SpreadOver{pref.GetSpread()}})
	}
	for _, f := range p.GetPlatforms() {
		out.Platforms = append(out.Platforms, Platform{Architecture: f.GetArchitecture(), OS: f.GetOs()})
	}
	if p.GetStrategy() != typesv1.PlacementStrategy_PLACEMENT_STRATEGY_UNSPECIFIED {
		out.Strategy = word(p.GetStrategy().String(), "PLACEMENT_STRATEGY_")
	}
	for _, a := range p.GetAffinities() {
		out.Affinities = append(out.Affinities, Affinity{
			Service: a.GetService(), Label: a.GetLabel(), Anti: a.GetAnti(), Topology: a.GetTopology(), Preferred: a.GetPreferred(),
		})
	}
	for _, t := range p.GetTolerations() {
		out.Tolerations = append(out.Tolerations, Toleration{Key: t.GetKey(), Value: t.GetValue()})
	}
	return out
}

func genericOf(list []*typesv1.GenericResource) []GenericResource {
	var out []GenericResource
	for _, g := range list {
		if g.GetNamed() != "" {
			out = append(out, GenericResource{NamedResourceSpec: &NamedResource{g.GetKind(), g.GetNamed()}})
			continue
		}
		out = append(out, GenericResource{DiscreteResourceSpec: &DiscreteResource{g.GetKind(), g.GetDiscrete()}})
	}
	return out
}

func taintsOf(list []*typesv1.Taint) []Taint {
	var out []Taint
	for _, t := range list {
		out = append(out, Taint{Key: t.GetKey(), Value: t.GetValue(), Effect: word(t.GetEffect().String(), "TAINT_EFFECT_")})
	}
	return out
}

func underlined(s string) string { return strings.ReplaceAll(s, "-", "_") }
