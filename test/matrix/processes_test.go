package matrix

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shoalproject/shoal/internal/authz/authztest"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
)

// TestEveryServiceHasItsProcess: no RPC is without a server, and no server has one that is not written down. What a
// process serves is asked of the process.
func TestEveryServiceHasItsProcess(t *testing.T) {
	var served []string
	for _, services := range written(t) {
		served = append(served, services...)
	}
	for _, s := range authztest.Services() {
		if !slices.Contains(served, string(s.FullName())) {
			t.Errorf("no process serves %s, by testdata/processes.txt", s.FullName())
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, p := range w.listeners() {
			name := identity.RoleName(p.role)
			if diff := cmp.Diff(slices.Sorted(slices.Values(written(t)[name])), w.ask(p)); diff != "" {
				t.Errorf("%s serves other services than written (- written, + served):\n%s", name, diff)
			}
		}
	})
}

// ask lists a process's own services by reflection.
func (w *world) ask(p process) []string {
	w.t.Helper()
	conn := w.dial(p.address, authzv1.Role_ROLE_OPERATOR, sound)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	err = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	if err != nil {
		w.t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		if !strings.HasPrefix(s.GetName(), "grpc.") {
			out = append(out, s.GetName())
		}
	}
	return slices.Sorted(slices.Values(out))
}

// TestProcessesRefuseWhomTheRulesDoNotName: at every process, every RPC × every role × every fault of a certificate, and
// × every role that passes a call on for every other. The rows are those of rules.txt.
func TestProcessesRefuseWhomTheRulesDoNotName(t *testing.T) {
	all := rules(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		made, want := 0, 0
		for _, p := range w.listeners() {
			rows := of(p, all, written(t))
			made += w.walk(p, rows)
			roles := len(authztest.Roles())
			want += len(rows) * (1 + roles*len(states()) + roles*roles)
		}
		if made != want {
			t.Errorf("%d pairs were looked at, of %d", made, want)
		}
		t.Logf("%d pairs", made)
	})
}

// of are the rows of what a process serves.
func of(p process, all []authztest.Rule, written map[string][]string) []authztest.Rule {
	var rows []authztest.Rule
	for _, r := range all {
		service, _, _ := strings.Cut(strings.TrimPrefix(r.Method, "/"), "/")
		if slices.Contains(written[identity.RoleName(p.role)], service) || strings.HasPrefix(service, "grpc.") {
			rows = append(rows, r)
		}
	}
	return rows
}

// TestEveryRPCIsAnswered: an empty request of somebody who may call is answered or refused for what it lacks. No RPC is
// registered and left out, and none fails by a fault of ours.
func TestEveryRPCIsAnswered(t *testing.T) {
	all := rules(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, p := range w.listeners() {
			for _, r := range of(p, all, written(t)) {
				conn := w.dial(p.address, r.Roles[len(r.Roles)-1], sound)
				err := call(t.Context(), conn, r.Method)
				switch status.Code(errs.ToStatus(err)) {
				case codes.Unimplemented, codes.Internal, codes.Unknown:
					t.Errorf("%s at the %s, with nothing in the request: %v", r.Method, identity.RoleName(p.role), err)
				default:
				}
				_ = conn.Close()
			}
		}
	})
}

// walk tries every caller whom a row forbids, and answers how many pairs it looked at, those that are allowed included.
func (w *world) walk(p process, rows []authztest.Rule) (pairs int) {
	try := func(ctx context.Context, conn *grpc.ClientConn, r authztest.Rule, who string, may, connects bool) {
		pairs++
		if may {
			return // authztest shows that it reaches its handler; here it would be carried out
		}
		err := call(ctx, conn, r.Method)
		code := status.Code(errs.ToStatus(err))
		if code != codes.PermissionDenied && (connects || code != codes.Unavailable) {
			w.t.Errorf("%s at the %s, %s: %v, wanted a refusal", r.Method, identity.RoleName(p.role), who, err)
		}
	}
	none := w.dial(p.address, authzv1.Role_ROLE_ANONYMOUS, sound)
	defer none.Close()
	for _, r := range rows {
		try(w.t.Context(), none, r, "without a certificate", slices.Contains(r.Roles, authzv1.Role_ROLE_ANONYMOUS), true)
	}
	for _, role := range authztest.Roles() {
		for _, s := range states() {
			conn := w.dial(p.address, role, s)
			for _, r := range rows {
				may := slices.Contains(r.Roles, role) && (s == sound || s == inGrace && slices.Contains(r.Expired, role))
				// No connection is a refusal only of a certificate that is not good for one.
				try(w.t.Context(), conn, r, identity.RoleName(role)+" "+string(s), may, s == sound || s == inGrace)
			}
			_ = conn.Close()
		}
		conn := w.dial(p.address, role, sound)
		for _, principal := range authztest.Roles() {
			ctx := rpc.Forward(w.t.Context(), rpc.Caller{Principal: w.id(principal, "principal")}, w.id(role, name(role)))
			for _, r := range rows {
				may := slices.Contains(r.Roles, principal) && slices.Contains(r.ForwardedBy, role) &&
					(role == authzv1.Role_ROLE_STORE || role == authzv1.Role_ROLE_GATEWAY && identity.IsPerson(principal))
				try(ctx, conn, r, identity.RoleName(role)+" for "+identity.RoleName(principal), may, true)
			}
		}
		_ = conn.Close()
	}
	return pairs
}

// call works for every kind of method: a unary one is a stream of one message each way.
func call(ctx context.Context, conn *grpc.ClientConn, method string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	// An error of Send is io.EOF: the reason comes from Recv.
	if err := s.SendMsg(&emptypb.Empty{}); err == nil {
		if err := s.CloseSend(); err != nil {
			return err
		}
	}
	if err := s.RecvMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
