package state

import (
	"net/netip"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// callerLabel begins the callers that are named by a label.
const callerLabel = "label:"

// Caller is who may call a service: one entry of its allow_from. Exactly one of Service, Label and Prefix is set.
type Caller struct {
	// Service is a name, or an id in a request.
	Service string
	// Label is that of the services that are meant, Value its value; with Any no matter which.
	Label, Value string
	Any          bool
	// Prefix has client addresses.
	Prefix netip.Prefix
}

// ParseCaller reads "web", "label:tier=front", "label:tier", "192.0.2.0/24" or "192.0.2.7".
func ParseCaller(text string) (Caller, error) {
	if label, ok := strings.CutPrefix(text, callerLabel); ok {
		key, value, has := strings.Cut(label, "=")
		if key == "" {
			return Caller{}, errs.New(errs.Invalid, "%q names no label; write label:tier=front", text)
		}
		return Caller{Label: key, Value: value, Any: !has}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return Caller{Prefix: netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())}, nil
	}
	if !strings.ContainsAny(text, ":/") { // neither is in a name
		if text == "" {
			return Caller{}, errs.New(errs.Invalid, "names nobody")
		}
		return Caller{Service: text}, nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil || p.Addr().Is4In6():
		return Caller{}, errs.New(errs.Invalid, "%q is no service, no label such as label:tier=front, and no range such as 192.0.2.0/24", text)
	case p != p.Masked():
		return Caller{}, errs.New(errs.Invalid, "%s has bits behind its prefix; %s is meant?", text, p.Masked())
	}
	return Caller{Prefix: p}, nil
}

// String is the form in which it is stored.
func (c Caller) String() string {
	switch {
	case c.Prefix.IsValid():
		return c.Prefix.String()
	case c.Label != "" && c.Any:
		return callerLabel + c.Label
	case c.Label != "":
		return callerLabel + c.Label + "=" + c.Value
	}
	return c.Service
}

// Is says that a service is one of those that are meant.
func (c Caller) Is(svc *typesv1.Service) bool {
	a := svc.GetSpec().GetAnnotations()
	if c.Label == "" {
		return c.Service != "" && a.GetName() == c.Service
	}
	value, has := a.GetLabels()[c.Label]
	return has && (c.Any || value == c.Value)
}
