package spec

import (
	"slices"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// dependencies are the flags of what a service's first tasks wait for.
func (f *Flags) dependencies(update bool) {
	if !update {
		f.set.StringArray("depends-on", nil, "start the first tasks when this service is healthy, or this job complete")
		return
	}
	f.set.StringArray("depends-on-add", nil, "let the first tasks wait for one more service")
	f.set.StringArray("depends-on-rm", nil, "let them wait for it no longer")
}

func (f *Flags) addDependencies(s *typesv1.ServiceSpec) {
	s.DependsOn = f.list("depends-on")
}

func (f *Flags) changeDependencies(s *typesv1.ServiceSpec) {
	s.DependsOn = f.without("depends-on-rm", s.GetDependsOn(), func(name string) string { return name })
	for _, name := range f.list("depends-on-add") {
		if !slices.Contains(s.GetDependsOn(), name) {
			s.DependsOn = append(s.DependsOn, name)
		}
	}
}
