package spec

import (
	"slices"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// callers are the flags of who may call a service.
func (f *Flags) callers(update bool) {
	f.set.StringArray("allow-from", nil, "let only these call it: a service, label:KEY=VALUE of services, a CIDR of clients (default: anyone)")
	if update {
		f.set.StringArray("allow-from-add", nil, "let one more call it")
		f.set.StringArray("allow-from-rm", nil, "let it call no longer; without any, anyone may")
	}
}

// applyCallers sets the whole list, or changes it.
func (f *Flags) applyCallers(s *typesv1.ServiceSpec) {
	list := s.GetEndpoint().GetAllowFrom()
	if f.set.Changed("allow-from") {
		list = slices.DeleteFunc(f.list("allow-from"), func(text string) bool { return text == "" })
	}
	if f.set.Lookup("allow-from-add") != nil {
		list = f.without("allow-from-rm", list, func(text string) string { return text })
		for _, text := range f.list("allow-from-add") {
			if !slices.Contains(list, text) {
				list = append(list, text)
			}
		}
	}
	if len(list) == 0 && s.GetEndpoint() == nil {
		return
	}
	if s.Endpoint == nil {
		s.Endpoint = &typesv1.EndpointSpec{}
	}
	s.Endpoint.AllowFrom = list
}
