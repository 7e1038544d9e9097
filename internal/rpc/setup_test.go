package rpc_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

const (
	storeRole     = authzv1.Role_ROLE_STORE
	schedulerRole = authzv1.Role_ROLE_SCHEDULER
	gatewayRole   = authzv1.Role_ROLE_GATEWAY
	operatorRole  = authzv1.Role_ROLE_OPERATOR
)

// world is one cluster's CA and network.
type world struct {
	env run.Env
	ca  *identitytest.Authority
}

func newWorld(t *testing.T) *world {
	t.Helper()
	env := testx.Env(t)
	return &world{env: env, ca: identitytest.New(t, env, "c1")}
}

func (w *world) keeper(t *testing.T, role authzv1.Role, name string) *identity.Keeper {
	t.Helper()
	return w.ca.Keeper(t, w.env, w.ca.ID(role, name))
}

// member is a server with a little of a store's API.
type member struct {
	storev1.UnimplementedCommitServiceServer
	storev1.UnimplementedWatchServiceServer
	controlv1.UnimplementedNodeServiceServer

	keeper *identity.Keeper
	server *rpc.Server
	stop   context.CancelFunc
	done   <-chan run.Result[struct{}]

	calls   atomic.Int64
	commit  func(ctx context.Context) error // what Commit answers
	list    func(ctx context.Context) error // what ListNodes answers
	watched chan error                      // gets what each Watch ended with
}

func (m *member) Commit(ctx context.Context, _ *storev1.CommitRequest) (*storev1.CommitResponse, error) {
	m.calls.Add(1)
	return &storev1.CommitResponse{}, m.commit(ctx)
}

func (m *member) ListNodes(ctx context.Context, _ *controlv1.ListNodesRequest) (*controlv1.ListNodesResponse, error) {
	m.calls.Add(1)
	return &controlv1.ListNodesResponse{}, m.list(ctx)
}

// Watch sends one message and then nothing, until its context ends.
func (m *member) Watch(_ *storev1.WatchRequest, s grpc.ServerStreamingServer[storev1.WatchResponse]) error {
	m.calls.Add(1)
	if err := s.Send(&storev1.WatchResponse{}); err != nil {
		return err
	}
	<-s.Context().Done()
	m.watched <- context.Cause(s.Context())
	return s.Context().Err()
}

// serve starts a store's server at an address.
func (w *world) serve(t *testing.T, k *identity.Keeper, addr string) *member {
	t.Helper()
	return w.serveWith(t, k, addr, nil)
}

// serveWith starts one that turns its clients away when it is told to.
func (w *world) serveWith(t *testing.T, k *identity.Keeper, addr string, drain rpc.Drain) *member {
	t.Helper()
	ok := func(context.Context) error { return nil }
	m := &member{keeper: k, commit: ok, list: ok, watched: make(chan error, 10)}
	env := w.env
	env.Metrics = testx.Env(t).Metrics
	m.server = rpc.NewServer(env, k)
	if drain != nil {
		m.server.TurnAway(drain)
	}
	storev1.RegisterCommitServiceServer(m.server.GRPC(), m)
	storev1.RegisterWatchServiceServer(m.server.GRPC(), m)
	controlv1.RegisterNodeServiceServer(m.server.GRPC(), m)
	m.start(t, addr)
	return m
}

func (m *member) start(t *testing.T, addr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	m.done = run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, m.server.Serve([]string{addr})(ctx)
	})
	t.Cleanup(func() { m.end(t) })
}

// end stops the server and waits.
func (m *member) end(t *testing.T) {
	t.Helper()
	if m.done == nil {
		return
	}
	m.stop()
	if r := <-m.done; r.Err != nil {
		t.Error(r.Err)
	}
	m.done = nil
}

// dial makes a client of one address.
func (w *world) dial(t *testing.T, k *identity.Keeper, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.DialAddress(w.env, k, addr, storeRole)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// dialAll makes a client of all stores in a directory.
func (w *world) dialAll(t *testing.T, k *identity.Keeper, dir *directory.Directory) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial(w.env, k, dir, storeRole)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// directoryOf has a store at each address.
func directoryOf(t *testing.T, w *world, addrs ...string) *directory.Directory {
	t.Helper()
	d, err := directory.New(w.env.Files, "/"+identity.NewID(w.env.Rand)+".json")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Set(stores(addrs...)); err != nil {
		t.Fatal(err)
	}
	return d
}

func stores(addrs ...string) *cav1.Directory {
	out := &cav1.Directory{}
	for _, a := range addrs {
		out.Entries = append(out.Entries, &cav1.DirectoryEntry{Role: storeRole, MachineId: a, Addresses: []string{a}})
	}
	return out
}

func commitOnce(ctx context.Context, conn *grpc.ClientConn, requestID string) error {
	_, err := storev1.NewCommitServiceClient(conn).Commit(ctx, &storev1.CommitRequest{Transaction: &storev1.Transaction{RequestId: requestID}})
	return err
}

func listOnce(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := controlv1.NewNodeServiceClient(conn).ListNodes(ctx, &controlv1.ListNodesRequest{})
	return err
}

// patient calls until it is not Unavailable: the server may not listen yet.
func patient(t *testing.T, f func() error) error {
	t.Helper()
	var err error
	for range 200 {
		if err = f(); !errs.Is(err, errs.Unavailable) {
			return err
		}
		if run.Sleep(t.Context(), 5*time.Millisecond) != nil {
			break
		}
	}
	return err
}

// logged keeps what a server logs.
type logged struct {
	slog.Handler
	mu   sync.Mutex // guards text
	text strings.Builder
}

func newLogged() *logged {
	l := &logged{}
	l.Handler = slog.NewTextHandler(lockedWriter{l}, nil)
	return l
}

type lockedWriter struct{ l *logged }

func (w lockedWriter) Write(p []byte) (int, error) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	return w.l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
