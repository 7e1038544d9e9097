package errs

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// Domain is the ErrorInfo domain of our errors.
const Domain = "shoal"

// ToStatus makes the gRPC status error of err: the kind as the code and as ErrorInfo, the faults as field violations,
// the text as the message. Causes do not cross: the peer gets words, not our internals. A context's end keeps its own
// code. A status error that holds none of our errors passes unchanged. Nil stays nil.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	e, ours := errors.AsType[*Error](err)
	if !ours {
		if s, ok := errors.AsType[grpcError](err); ok && s.GRPCStatus().Code() != codes.OK {
			// FromError keeps code and details and takes the text of the whole chain.
			return status.Convert(err).Err()
		}
		e = &Error{Kind: KindOf(err), cause: err}
	}
	return e.status(err.Error()).Err()
}

// GRPCStatus lets grpc's own code (status.Code, a server without the interceptor) see the right code.
func (e *Error) GRPCStatus() *status.Status { return e.status(e.text) }

func (e *Error) status(message string) *status.Status {
	s := status.New(e.wireCode(), message)
	info := e.Kind.info()
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Domain: Domain, Reason: info.reason}}
	if len(e.Faults) > 0 {
		bad := &errdetails.BadRequest{}
		for _, f := range e.Faults {
			bad.FieldViolations = append(bad.FieldViolations,
				&errdetails.BadRequest_FieldViolation{Field: f.Field, Description: f.Reason})
		}
		details = append(details, bad)
	}
	if with, err := s.WithDetails(details...); err == nil {
		return with
	}
	return s // only for code OK, which no Kind of ours has
}

// wireCode is the kind's code, unless the error arrived with, or was caused by, something that has a code of its own.
func (e *Error) wireCode() codes.Code {
	switch {
	case e.code != codes.OK:
		return e.code
	case e.Kind == Unavailable && errors.Is(e.cause, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case e.Kind == Unavailable && errors.Is(e.cause, context.Canceled):
		return codes.Canceled
	}
	return e.Kind.Code()
}

// FromStatus makes of a gRPC error what the peer gave to ToStatus: kind, faults and text. An error that is no status
// (io.EOF of a stream, an error that FromStatus has made) and nil pass unchanged.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ours := errors.AsType[*Error](err); ours {
		return err
	}
	s, ok := status.FromError(err)
	if !ok || s.Code() == codes.OK {
		return err
	}
	e := &Error{Kind: kindOfCode(s.Code()), text: s.Message()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if k, ok := kindOfReason(d.GetReason()); ok && d.GetDomain() == Domain {
				e.Kind = k
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Faults = append(e.Faults, Fault{Field: v.GetField(), Reason: v.GetDescription()})
			}
		}
	}
	switch s.Code() {
	case codes.Canceled:
		e.cause = context.Canceled
	case codes.DeadlineExceeded:
		e.cause = context.DeadlineExceeded
	default:
	}
	if s.Code() != e.Kind.Code() {
		e.code = s.Code()
	}
	return e
}
