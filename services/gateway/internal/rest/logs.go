package rest

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/shoalproject/shoal/internal/authz"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// logStream serves LogService.Logs as newline-delimited JSON: {"result": …} a response, {"error": …} if it fails later on.
// The handlers that grpc-gateway makes for streams want a connection to a server; this one is in the same process.
type logStream struct {
	server logsv1.LogServiceServer
	rules  *authz.Registry
}

func (l *logStream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := &logWriter{ctx: r.Context(), w: w, flush: http.NewResponseController(w)}
	err := l.serve(r, out)
	if r.Context().Err() != nil {
		// Who sends may be in a write still, which nobody reads: let go of it, and of the response, which is another's next.
		_ = out.flush.SetWriteDeadline(time.Unix(0, 1))
	}
	out.end(err)
}

func (l *logStream) serve(r *http.Request, out *logWriter) error {
	caller, _ := rpc.CallerOf(r.Context())
	if err := l.rules.Check(logsv1.LogService_Logs_FullMethodName, caller, authz.Peer{ID: caller.Principal}); err != nil {
		return err
	}
	req := &logsv1.LogsRequest{}
	if err := runtime.PopulateQueryParameters(req, r.URL.Query(), utilities.NewDoubleArray(nil)); err != nil {
		return errs.New(errs.Invalid, "read logs: %w", err)
	}
	return l.server.Logs(req, out)
}

// logWriter is a response as a stream. Only Context and Send are called.
type logWriter struct {
	grpc.ServerStream
	ctx   context.Context //nolint:containedctx // a stream is its context: grpc.ServerStream has it as a method
	w     http.ResponseWriter
	flush *http.ResponseController

	mu    sync.Mutex // guards the response, which is not ours any more after ended
	begun bool
	ended bool
}

func (o *logWriter) Context() context.Context { return o.ctx }

// Send writes one line. A client that does not read holds it up until it goes.
func (o *logWriter) Send(m *logsv1.LogsResponse) error {
	raw, err := protojson.MarshalOptions{}.Marshal(m)
	if err != nil {
		return err
	}
	return o.line("result", raw)
}

// line needs no lock of its caller.
func (o *logWriter) line(name string, raw []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return errs.New(errs.Unavailable, "the client has gone")
	}
	return o.write(name, raw)
}

func (o *logWriter) write(name string, raw []byte) error {
	if !o.begun {
		o.begun = true
		o.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	if _, err := o.w.Write(append([]byte(`{"`+name+`":`), append(raw, "}\n"...)...)); err != nil {
		return err
	}
	return o.flush.Flush()
}

// end lets go of the response. It tells an error: as the answer if nothing was sent yet, else as the last line.
func (o *logWriter) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	if err == nil {
		return
	}
	s := status.Convert(errs.ToStatus(err))
	raw, jsonErr := protojson.Marshal(s.Proto())
	if jsonErr != nil {
		raw = []byte(`{"code":13}`)
	}
	if o.begun {
		_ = o.write("error", raw) // the client is gone if this fails
		return
	}
	o.w.Header().Set("Content-Type", "application/json")
	o.w.WriteHeader(runtime.HTTPStatusFromCode(s.Code()))
	_, _ = o.w.Write(raw) // as above
}
