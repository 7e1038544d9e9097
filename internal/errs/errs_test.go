package errs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/shoalproject/shoal/internal/errs"
)

func allKinds() []errs.Kind {
	return []errs.Kind{
		errs.Internal, errs.NotFound, errs.Exists, errs.Invalid, errs.Conflict, errs.Precondition,
		errs.Denied, errs.Exhausted, errs.Unavailable,
	}
}

func TestKindIsSeenThroughWraps(t *testing.T) {
	for _, kind := range allKinds() {
		err := fmt.Errorf("outer: %w", errors.Join(errors.New("other"), errs.New(kind, "inner %d", 1)))
		if !errs.Is(err, kind) || errs.KindOf(err) != kind || !errors.Is(err, kind) {
			t.Errorf("%s is not seen", kind)
		}
		for _, other := range allKinds() {
			if other != kind && errs.Is(err, other) {
				t.Errorf("%s is taken for %s", kind, other)
			}
		}
	}
	for err, want := range map[error]errs.Kind{
		nil:                                   errs.None,
		io.EOF:                                errs.Internal,
		context.Canceled:                      errs.Unavailable,
		status.Error(codes.Aborted, "x"):      errs.Conflict,
		fmt.Errorf("bare %w", errs.Exhausted): errs.Exhausted,
	} {
		if got := errs.KindOf(err); got != want {
			t.Errorf("KindOf(%v) is %s, want %s", err, got, want)
		}
	}
	if errs.Is(nil, errs.None) {
		t.Error("nil is an error of a kind")
	}
	cause := errs.New(errs.NotFound, "read: %w", io.ErrUnexpectedEOF)
	if !errors.Is(cause, io.ErrUnexpectedEOF) {
		t.Error("New hides what %w wraps")
	}
}

func TestFaultsAreAllInOneText(t *testing.T) {
	var c errs.Collector
	if c.Err("x") != nil {
		t.Error("no faults are an error")
	}
	c.Add("replicas", "%d is below 0", -1)
	one := c.Err(`create service "web"`)
	if got := one.Error(); got != `create service "web": replicas: -1 is below 0` {
		t.Errorf("one fault: %q", got)
	}
	c.Check(true, "name", "never seen")
	c.Check(false, "", "no image")
	var inner errs.Collector
	inner.Add("[0].published", "30000/tcp is taken")
	c.Merge("ports", inner.Err("ports"))
	c.Merge("tls", errors.New("no key"))
	c.Merge("fine", nil)
	want := "create service \"web\": 4 faults\n  replicas: -1 is below 0\n  no image\n  ports[0].published: 30000/tcp is taken\n  tls: no key"
	if got := c.Err(`create service "web"`).Error(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if c.Len() != 4 || !errs.Is(c.Err("x"), errs.Invalid) {
		t.Errorf("%d faults, kind %s", c.Len(), errs.KindOf(c.Err("x")))
	}
}

// handler answers Check and Watch with what the test says.
type handler struct {
	grpc_health_v1.UnimplementedHealthServer
	err   error
	heard chan error // of Watch: how the server's own Send failed
}

func (h *handler) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return nil, h.err
}

func (h *handler) Watch(_ *grpc_health_v1.HealthCheckRequest, s grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	if err := s.Send(&grpc_health_v1.HealthCheckResponse{}); err != nil {
		return err
	}
	if h.heard != nil {
		<-s.Context().Done()
		h.heard <- s.Send(&grpc_health_v1.HealthCheckResponse{})
	}
	return h.err
}

// hop is a client of the handler over a real gRPC connection with all four interceptors.
func hop(t *testing.T, h *handler) grpc_health_v1.HealthClient {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	srv := grpc.NewServer(grpc.UnaryInterceptor(errs.UnaryServer()), grpc.StreamInterceptor(errs.StreamServer()))
	grpc_health_v1.RegisterHealthServer(srv, h)
	go func() { _ = srv.Serve(l) }()
	cc, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(errs.UnaryClient()), grpc.WithStreamInterceptor(errs.StreamClient()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close(); srv.Stop() })
	return grpc_health_v1.NewHealthClient(cc)
}

func TestErrorsSurviveAHop(t *testing.T) {
	faults := []errs.Fault{{Field: "ports[0].published", Reason: `30000/tcp is taken by service "micro"`}, {Reason: "no image"}}
	type row struct {
		name   string
		err    error
		kind   errs.Kind
		code   codes.Code
		faults []errs.Fault
		is     error
	}
	rows := []row{
		{name: "faults", err: fmt.Errorf("store: %w", errs.Faults("create", faults...)), kind: errs.Invalid, code: codes.InvalidArgument, faults: faults},
		{name: "precondition with faults", err: errs.WithFaults(errs.Precondition, "remove", faults...), kind: errs.Precondition, code: codes.FailedPrecondition, faults: faults},
		{name: "unclassified", err: errors.New("disk on fire"), kind: errs.Internal, code: codes.Internal},
		{name: "deadline", err: fmt.Errorf("ask the leader: %w", context.DeadlineExceeded), kind: errs.Unavailable, code: codes.DeadlineExceeded, is: context.DeadlineExceeded},
		{name: "cancelled", err: context.Canceled, kind: errs.Unavailable, code: codes.Canceled, is: context.Canceled},
		{name: "plain status", err: status.Error(codes.Unauthenticated, "who are you"), kind: errs.Denied, code: codes.Unauthenticated},
	}
	for _, kind := range allKinds() {
		rows = append(rows, row{name: kind.String(), err: errs.New(kind, "some %s thing", kind), kind: kind, code: kind.Code()})
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			client := hop(t, &handler{err: r.err})
			_, unary := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
			watch, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := watch.Recv(); err != nil {
				t.Fatal(err)
			}
			_, stream := watch.Recv()
			text := r.err.Error()
			if s, ok := status.FromError(r.err); ok {
				text = s.Message()
			}
			for _, got := range []error{unary, stream} {
				if !errs.Is(got, r.kind) || status.Code(got) != r.code || got.Error() != text {
					t.Errorf("got %s, %s, %q", errs.KindOf(got), status.Code(got), got)
				}
				if diff := cmp.Diff(r.faults, errs.FaultsOf(got)); diff != "" {
					t.Error(diff)
				}
				if r.is != nil && !errors.Is(got, r.is) {
					t.Errorf("%v is not %v any more", got, r.is)
				}
			}
			// A gateway passes on what it was told: the second hop loses nothing, either.
			again := errs.FromStatus(errs.ToStatus(unary))
			if errs.KindOf(again) != r.kind || status.Code(again) != r.code || cmp.Diff(r.faults, errs.FaultsOf(again)) != "" {
				t.Errorf("after a second hop: %s, %s, %v", errs.KindOf(again), status.Code(again), again)
			}
		})
	}
}

func TestStreamsEndStaysEOFAndCancelIsSeenByTheServer(t *testing.T) {
	client := hop(t, &handler{})
	watch, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = watch.Recv()
	if _, err := watch.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("end of stream: %v", err)
	}
	h := &handler{heard: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	watch, err = hop(t, h).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = watch.Recv()
	cancel()
	if err := <-h.heard; !errs.Is(err, errs.Unavailable) {
		t.Errorf("the server's Send after the client has left: %v", err)
	}
	if _, err := watch.Recv(); !errors.Is(err, context.Canceled) {
		t.Errorf("the client's own cancel: %v", err)
	}
}

func TestReasonOfANewerPeerFallsBackToTheCode(t *testing.T) {
	err := errs.FromStatus(status.Error(codes.OutOfRange, "x"))
	if !errs.Is(err, errs.Invalid) || errs.FromStatus(nil) != nil || errs.ToStatus(nil) != nil || errs.FromStatus(io.EOF) != io.EOF {
		t.Errorf("got %v", errs.KindOf(err))
	}
}
