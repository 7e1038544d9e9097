package admit

import (
	"fmt"
	"slices"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// maxCallers is how many entries may say who calls a service.
const maxCallers = 100

// callers checks who may call the service, and writes them in one form: services by name, as dependencies are, and for the
// same reason one that was named before and is gone since may stay. A label may be one that no service has yet.
func (f *Faults) callers(s *state.Snapshot, id string, spec *typesv1.ServiceSpec) {
	list := spec.GetEndpoint().GetAllowFrom()
	if len(list) == 0 {
		return
	}
	f.Check(len(list) <= maxCallers, "endpoint.allow_from", "has %d entries, at most %d are allowed", len(list), maxCallers)
	f.Check(!spec.GetTask().GetContainer().GetPrivileges().GetHostNetwork(), "endpoint.allow_from",
		"a task on its node's own network is called as the node is; use the node's firewall")
	before := s.Service(id).GetSpec().GetEndpoint().GetAllowFrom()
	for i, text := range list {
		field := fmt.Sprintf("endpoint.allow_from[%d]", i)
		c, err := state.ParseCaller(text)
		if err != nil {
			f.Add(field, "%s", err)
			continue
		}
		if c.Service != "" {
			svc := s.ServiceByName(c.Service)
			if svc == nil {
				svc = s.Service(c.Service)
			}
			switch {
			case c.Service == spec.GetAnnotations().GetName() || svc != nil && svc.GetMeta().GetId() == id:
				f.Add(field, "%q is the service itself, whose tasks always may", text)
				continue
			case svc != nil:
				c.Service = svc.GetSpec().GetAnnotations().GetName()
			case !slices.Contains(before, text):
				f.AddKind(errs.Precondition, field, "no service %q%s", text, suggest(text, serviceNames(s)))
				continue
			}
		}
		list[i] = c.String()
		f.Check(!slices.Contains(list[:i], list[i]), field, "%q is named twice", text)
	}
}
