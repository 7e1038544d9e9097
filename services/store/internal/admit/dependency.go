package admit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// maxDependencies is how many services one may wait for.
const maxDependencies = 50

// dependencies checks what the first tasks wait for, and writes it as names: a service that is removed and made anew is the
// same to those that depend on it. One that was named before and is gone since may stay, so that a service can be changed
// without it; its tasks say that they wait for it.
func (f *Faults) dependencies(s *state.Snapshot, id string, spec *typesv1.ServiceSpec) {
	list := spec.GetDependsOn()
	f.Check(len(list) <= maxDependencies, "depends_on", "has %d entries, at most %d are allowed", len(list), maxDependencies)
	before := s.Service(id).GetSpec().GetDependsOn()
	own := spec.GetAnnotations().GetName()
	for i, want := range list {
		field := fmt.Sprintf("depends_on[%d]", i)
		on := s.ServiceByName(want)
		if on == nil {
			on = s.Service(want)
		}
		if on != nil {
			list[i] = on.GetSpec().GetAnnotations().GetName()
		}
		switch {
		case want == "":
			f.Add(field, "names no service")
		case list[i] == own:
			f.Add(field, "%q is the service itself", want)
		case slices.Contains(list[:i], list[i]):
			f.Add(field, "%q is named twice", want)
		case on == nil && !slices.Contains(before, want):
			f.AddKind(errs.Precondition, field, "no service %q%s", want, suggest(want, serviceNames(s)))
		default:
			if way := wayBack(s, list[i], own, nil); way != nil {
				f.Add(field, "is a cycle: %s -> %s", own, strings.Join(way, " -> "))
			}
		}
	}
}

// wayBack is how a service depends on another by way of others, nil if it does not. Seen are those that were asked: what is
// stored may be older than this rule.
func wayBack(s *state.Snapshot, from, to string, seen map[string]bool) []string {
	if seen == nil {
		seen = map[string]bool{}
	}
	if from == to {
		return []string{from}
	}
	if seen[from] {
		return nil
	}
	seen[from] = true
	for _, next := range s.ServiceByName(from).GetSpec().GetDependsOn() {
		if way := wayBack(s, next, to, seen); way != nil {
			return append([]string{from}, way...)
		}
	}
	return nil
}

func serviceNames(s *state.Snapshot) (names []string) {
	for svc := range s.Services() {
		names = append(names, svc.GetSpec().GetAnnotations().GetName())
	}
	return names
}
