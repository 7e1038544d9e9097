// Package errs has the kinds of error that cross our processes, and the way they cross them.
//
// It owns: the kinds, lists of faults of a request, and the mapping to gRPC status and back (one server and one client
// interceptor, so that errors.Is, errors.As and fault lists survive a hop).
// It never logs and never decides whether to retry. Everything in it is safe for concurrent use, except a Collector,
// which belongs to one goroutine.
//
// A good error says what was tried, on which object, why it failed, and what to do next:
//
//	errs.New(errs.Precondition, "remove network %q: service %q uses it; remove the service first", net, svc)
package errs

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
)

// Error is an error with a kind. Wrap it with fmt.Errorf("...: %w", err); the kind and the faults stay visible.
type Error struct {
	// Kind is never None.
	Kind Kind
	// Faults are all that is wrong with the request, in the order in which they were found. Often empty.
	Faults []Fault

	text  string     // the whole text, the faults included
	cause error      // what New was given with %w; does not cross a hop, except a context's end
	code  codes.Code // the code it arrived with, when that says more than the kind; else OK
}

// Fault is one thing that is wrong with one field.
type Fault struct {
	// Field is the path of the field in the request, e.g. "ports[0].published". Empty if the fault is of the whole.
	Field string
	// Reason says what is wrong and what would be right.
	Reason string
}

// String is "field: reason".
func (f Fault) String() string {
	if f.Field == "" {
		return f.Reason
	}
	return f.Field + ": " + f.Reason
}

// New makes an error of a kind. The format may contain %w.
func New(kind Kind, format string, args ...any) error {
	if kind == None {
		kind = Internal
	}
	full := fmt.Errorf(format, args...)
	e := &Error{Kind: kind, text: full.Error()}
	if errors.Unwrap(full) != nil {
		e.cause = errors.Unwrap(full)
	} else if _, ok := full.(interface{ Unwrap() []error }); ok {
		e.cause = full
	}
	return e
}

// Faults makes one Invalid error of all faults of a request; it is nil if there are none. What is the operation and its
// object: `create service "web"`.
func Faults(what string, faults ...Fault) error {
	return WithFaults(Invalid, what, faults...)
}

// WithFaults is Faults with another kind, usually Precondition: well formed, but these fields clash with what is there.
func WithFaults(kind Kind, what string, faults ...Fault) error {
	if len(faults) == 0 {
		return nil
	}
	return &Error{Kind: kind, Faults: faults, text: faultText(what, faults)}
}

// faultText puts a single fault on the same line and several below each other.
func faultText(what string, faults []Fault) string {
	if len(faults) == 1 {
		return what + ": " + faults[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d faults", what, len(faults))
	for _, f := range faults {
		b.WriteString("\n  ")
		b.WriteString(f.String())
	}
	return b.String()
}

// FaultsOf lists the faults of the first error in err's tree that has a kind.
func FaultsOf(err error) []Fault {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Faults
	}
	return nil
}

// Error is the text for people, the faults included.
func (e *Error) Error() string { return e.text }

// Unwrap is the cause given with %w, if any.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is(err, errs.NotFound) true for an error of that kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}
