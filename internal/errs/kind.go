package errs

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kind says what a caller can do about an error. It is itself an error, so that errors.Is(err, errs.NotFound) works.
type Kind uint8

const (
	// None is the kind of a nil error.
	None Kind = iota
	// Internal is a fault of ours or an error nobody has classified. A person must look.
	Internal
	// NotFound says that the named thing is not there.
	NotFound
	// Exists says that the name or id is taken.
	Exists
	// Invalid says that the request can never work as it is; it usually carries Faults.
	Invalid
	// Conflict says that the world has changed since the version the caller read: read again and decide again.
	Conflict
	// Precondition says that the request is well formed but the present state forbids it (still in use, not the leader, ...).
	Precondition
	// Denied says that the caller is not known or may not do this.
	Denied
	// Exhausted says that a bounded resource (a pool, a quota, a disk) is used up.
	Exhausted
	// Unavailable says that there was no answer; the same request may be tried again, and may already have had its effect.
	Unavailable
)

// kindInfo is one row of the table of kinds: the name for people, the ErrorInfo reason and the gRPC code.
type kindInfo struct {
	name   string
	reason string
	code   codes.Code
}

// info is a switch instead of a package variable, so that nobody can change the table.
func (k Kind) info() kindInfo {
	switch k {
	case None:
		return kindInfo{"none", "NONE", codes.OK}
	case NotFound:
		return kindInfo{"not found", "NOT_FOUND", codes.NotFound}
	case Exists:
		return kindInfo{"exists", "EXISTS", codes.AlreadyExists}
	case Invalid:
		return kindInfo{"invalid", "INVALID", codes.InvalidArgument}
	case Conflict:
		return kindInfo{"conflict", "CONFLICT", codes.Aborted}
	case Precondition:
		return kindInfo{"precondition", "PRECONDITION", codes.FailedPrecondition}
	case Denied:
		return kindInfo{"denied", "DENIED", codes.PermissionDenied}
	case Exhausted:
		return kindInfo{"exhausted", "EXHAUSTED", codes.ResourceExhausted}
	case Unavailable:
		return kindInfo{"unavailable", "UNAVAILABLE", codes.Unavailable}
	case Internal:
	}
	return kindInfo{"internal", "INTERNAL", codes.Internal}
}

// String is the kind's name in words, as a log attribute or metric label.
func (k Kind) String() string { return k.info().name }

// Error makes a Kind usable as the target of errors.Is.
func (k Kind) Error() string { return k.info().name }

// Code is the gRPC code that carries the kind.
func (k Kind) Code() codes.Code { return k.info().code }

// kindOfCode is the way back for a status without our ErrorInfo, e.g. one that grpc itself made.
func kindOfCode(c codes.Code) Kind {
	switch c {
	case codes.OK:
		return None
	case codes.NotFound:
		return NotFound
	case codes.AlreadyExists:
		return Exists
	case codes.InvalidArgument, codes.OutOfRange:
		return Invalid
	case codes.Aborted:
		return Conflict
	case codes.FailedPrecondition:
		return Precondition
	case codes.PermissionDenied, codes.Unauthenticated:
		return Denied
	case codes.ResourceExhausted:
		return Exhausted
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return Unavailable
	case codes.Unknown, codes.Unimplemented, codes.Internal, codes.DataLoss:
	}
	return Internal
}

// kindOfReason finds the kind whose ErrorInfo reason this is; ok is false for a reason of a newer peer.
func kindOfReason(reason string) (kind Kind, ok bool) {
	for k := Internal; k <= Unavailable; k++ {
		if k.info().reason == reason {
			return k, true
		}
	}
	return None, false
}

// grpcError is what grpc's status errors implement.
type grpcError interface {
	error
	GRPCStatus() *status.Status
}

// KindOf is the kind of the first error in err's tree that has one. A nil error has kind None. A context's end, here or
// on the other side, counts as Unavailable: there was no answer. Anything else is Internal.
func KindOf(err error) Kind {
	if err == nil {
		return None
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if k, ok := errors.AsType[Kind](err); ok {
		return k
	}
	if s, ok := errors.AsType[grpcError](err); ok {
		return kindOfCode(s.GRPCStatus().Code())
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	return Internal
}

// Is reports whether err, or anything it wraps, is of the kind.
func Is(err error, kind Kind) bool {
	return err != nil && (errors.Is(err, kind) || KindOf(err) == kind)
}
