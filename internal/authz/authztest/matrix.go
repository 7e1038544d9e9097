package authztest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

const (
	cluster = "matrix"
	address = "server:1"
	person  = "ann"
)

// state is what is wrong with a caller's certificate.
type state string

const (
	sound        state = "sound"
	otherCluster state = "of another cluster"
	expired      state = "expired"
	inGrace      state = "expired, within the grace"
	denied       state = "denied"
)

func states() []state { return []state{sound, otherCluster, expired, inGrace, denied} }

// Counts is how much a Matrix has tried.
type Counts struct {
	// Methods is the number of rows, which is the registry's.
	Methods int
	// Calls is the number of calls: every method × (no certificate + every role × every state + every role passing calls
	// on for every role).
	Calls int
}

// Matrix serves the services with handlers that do nothing, and calls each method as every kind of caller. Rules is the
// table of what must be; a method without a row, a row without a method, and a row that differs from the proto fail.
func Matrix(t *testing.T, rules string, services ...protoreflect.ServiceDescriptor) Counts {
	t.Helper()
	m := newMatrix(t, services)
	registry, err := m.server.Registry()
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse(rules)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strip(rules), Table(registry)); diff != "" {
		t.Errorf("the table differs from the protos (- table, + protos):\n%s", diff)
	}
	m.serve(t)
	m.walk(t, want)
	m.walkForwards(t, want)
	counts := Counts{Methods: len(registry.Methods()), Calls: m.calls}
	roles := len(Roles())
	if all := counts.Methods * (1 + roles*len(states()) + roles*roles); m.calls != all {
		t.Errorf("%d calls were made, %d methods need %d", m.calls, counts.Methods, all)
	}
	return counts
}

func strip(table string) string {
	var out strings.Builder
	for line := range strings.Lines(table) {
		if s := strings.TrimSpace(line); s != "" && !strings.HasPrefix(s, "#") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// matrix is one server and the clients that try it.
type matrix struct {
	env    run.Env
	ca     *identitytest.Authority
	alien  *identitytest.Authority
	keeper *identity.Keeper // the server's
	server *rpc.Server
	stub   *stub
	calls  int
}

func newMatrix(t *testing.T, services []protoreflect.ServiceDescriptor) *matrix {
	t.Helper()
	env := testx.Env(t)
	env.Log = slog.New(slog.DiscardHandler) // thousands of refusals
	m := &matrix{env: env, ca: identitytest.New(t, env, cluster), alien: identitytest.New(t, env, "alien"), stub: &stub{}}
	m.keeper = m.ca.Keeper(t, env, m.ca.ID(authzv1.Role_ROLE_STORE, "server"))
	m.keeper.SetGrace(time.Hour)
	m.server = rpc.NewServer(env, m.keeper)
	for _, s := range services {
		m.server.GRPC().RegisterService(m.stub.describe(s), nil)
	}
	return m
}

func (m *matrix) serve(t *testing.T) {
	t.Helper()
	var entries []string
	for _, r := range Roles() {
		entries = append(entries, m.ca.ID(r, "removed").Member())
	}
	m.keeper.SetTrust(nil, entries)
	ctx, cancel := context.WithCancel(context.Background())
	done := run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, m.server.Serve([]string{address})(ctx)
	})
	t.Cleanup(func() {
		cancel()
		if r := <-done; r.Err != nil {
			t.Error(r.Err)
		}
	})
	// A refused connection would look like a refused caller: the server has to listen before the first.
	for range 10_000 {
		probe, err := m.env.Net.Dial(ctx, "tcp", address)
		if err == nil {
			_ = probe.Close()
			return
		}
		_ = run.Sleep(ctx, time.Millisecond)
	}
	t.Fatal("the server does not listen")
}

// caller makes a client with a certificate of a role in a state; none without a role. It believes any server: what is
// tested is whom the server believes.
func (m *matrix) caller(t *testing.T, role authzv1.Role, s state) *grpc.ClientConn {
	t.Helper()
	config := identity.BlindTLS(m.env, "h2")
	if role != authzv1.Role_ROLE_ANONYMOUS {
		cert := m.certificate(t, role, s)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	conn, err := rpc.DialTLS(m.env, address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (m *matrix) certificate(t *testing.T, role authzv1.Role, s state) tls.Certificate {
	t.Helper()
	now := m.env.Now()
	leaf := identitytest.Leaf{URIs: []string{m.ca.ID(role, name(role)).URI()}}
	ca := m.ca
	switch s {
	case sound:
	case otherCluster:
		ca = m.alien
		leaf.URIs = []string{ca.ID(role, name(role)).URI()}
	case expired:
		leaf.NotBefore, leaf.NotAfter = now.Add(-9*time.Hour), now.Add(-2*time.Hour)
	case inGrace:
		leaf.NotBefore, leaf.NotAfter = now.Add(-9*time.Hour), now.Add(-time.Minute)
	case denied:
		leaf.URIs = []string{m.ca.ID(role, "removed").URI()}
	}
	return ca.Certificate(t, leaf)
}

func name(role authzv1.Role) string {
	if identity.IsPerson(role) {
		return person
	}
	return "m1"
}

// walk makes every direct call.
func (m *matrix) walk(t *testing.T, rules []Rule) {
	t.Helper()
	anonymous := m.caller(t, authzv1.Role_ROLE_ANONYMOUS, sound)
	for _, rule := range rules {
		m.try(t.Context(), t, anonymous, rule, "without a certificate", slices.Contains(rule.Roles, authzv1.Role_ROLE_ANONYMOUS))
	}
	for _, role := range Roles() {
		for _, s := range states() {
			conn := m.caller(t, role, s)
			for _, rule := range rules {
				may := slices.Contains(rule.Roles, role) && (s == sound || s == inGrace && slices.Contains(rule.Expired, role))
				m.try(t.Context(), t, conn, rule, identity.RoleName(role)+" "+string(s), may)
			}
		}
	}
}

// walkForwards makes every call that one passes on for another.
func (m *matrix) walkForwards(t *testing.T, rules []Rule) {
	t.Helper()
	for _, hop := range Roles() {
		conn := m.caller(t, hop, sound)
		for _, principal := range Roles() {
			ctx := rpc.Forward(t.Context(), rpc.Caller{Principal: m.ca.ID(principal, "principal")}, m.ca.ID(hop, name(hop)))
			for _, rule := range rules {
				may := slices.Contains(rule.Roles, principal) && slices.Contains(rule.ForwardedBy, hop) &&
					(hop == authzv1.Role_ROLE_STORE || hop == authzv1.Role_ROLE_GATEWAY && identity.IsPerson(principal))
				m.try(ctx, t, conn, rule, identity.RoleName(hop)+" for "+identity.RoleName(principal), may)
			}
		}
	}
}

// try makes one call. Refused is: before the handler, with PermissionDenied, or with no connection at all.
func (m *matrix) try(ctx context.Context, t *testing.T, conn *grpc.ClientConn, rule Rule, who string, may bool) {
	t.Helper()
	m.calls++
	before := m.stub.reached.Load()
	err := call(ctx, conn, rule.Method)
	reached := m.stub.reached.Load() > before
	code := status.Code(errs.ToStatus(err))
	refused := code == codes.PermissionDenied || code == codes.Unavailable
	if strings.HasPrefix(rule.Method, "/grpc.") { // not stubs: they answer, or find the empty request wanting
		reached = !refused
	}
	switch {
	case may && (refused || !reached):
		t.Errorf("%s, %s: refused, and the table allows it: %v", rule.Method, who, err)
	case !may && reached:
		t.Errorf("%s, %s: reached the handler, and the table forbids it", rule.Method, who)
	case !may && !refused:
		t.Errorf("%s, %s: refused with %v, wanted PermissionDenied or no connection", rule.Method, who, err)
	}
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
