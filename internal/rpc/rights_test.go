package rpc_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
)

// watch opens a stream and takes its first message.
func watch(t *testing.T, conn *grpc.ClientConn) grpc.ServerStreamingClient[storev1.WatchResponse] {
	t.Helper()
	s, err := storev1.NewWatchServiceClient(conn).Watch(t.Context(), &storev1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	return s
}

func listOrCommit(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	return patient(t, func() error { return commitOnce(t.Context(), conn, "r") })
}

func TestDenyingAPeerEndsItsStreamsAtOnce(t *testing.T) {
	for name, entry := range map[string]func(k *identity.Keeper) string{
		"by member": func(k *identity.Keeper) string { return k.ID().Member() },
		"by serial": func(k *identity.Keeper) string { return identity.Serial(k.Certificate()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				m := w.serve(t, w.keeper(t, storeRole, "m1"), "a:1")
				synctest.Wait()
				removed, other := w.keeper(t, schedulerRole, "s1"), w.keeper(t, schedulerRole, "s2")
				c1, c2 := w.dial(t, removed, "a:1"), w.dial(t, other, "a:1")
				s1, s2 := watch(t, c1), watch(t, c2)
				start := time.Now()
				m.keeper.SetTrust(nil, []string{entry(removed)})
				if _, err := s1.Recv(); err == nil {
					t.Error("the denied peer's stream goes on")
				}
				if d := time.Since(start); d > time.Second {
					t.Errorf("it went on for %s", d)
				}
				if err := commitOnce(t.Context(), c1, "r"); err == nil {
					t.Error("the denied peer may call")
				}
				if err := commitOnce(t.Context(), c2, "r"); err != nil {
					t.Errorf("the other may not: %v", err)
				}
				_, _ = c1.Close(), c2.Close()
				if _, err := s2.Recv(); err == nil {
					t.Error("closed")
				}
				m.end(t)
			})
		})
	}
}

func TestAClientLeavesAServerThatIsDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.serve(t, w.keeper(t, storeRole, "m1"), "a:1")
		synctest.Wait()
		k := w.keeper(t, schedulerRole, "s")
		conn := w.dial(t, k, "a:1")
		s := watch(t, conn)
		start := time.Now()
		k.SetTrust(nil, []string{"store/m1"})
		if _, err := s.Recv(); err == nil || time.Since(start) > time.Second {
			t.Errorf("ended with %v after %s", err, time.Since(start))
		}
		if err := commitOnce(t.Context(), conn, "r"); !errs.Is(err, errs.Unavailable) {
			t.Error(err)
		}
		_ = conn.Close()
		m.end(t)
	})
}

// A gateway's own rights stay; those of the person behind a call end.
func TestDenyingAPrincipalEndsItsForwardedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.serve(t, w.keeper(t, storeRole, "m1"), "a:1")
		got := make(chan error, 1)
		m.list = func(ctx context.Context) error {
			<-ctx.Done()
			got <- context.Cause(ctx)
			return ctx.Err()
		}
		synctest.Wait()
		gateway := w.keeper(t, gatewayRole, "g")
		conn := w.dial(t, gateway, "a:1")
		ann := rpc.Caller{Principal: w.ca.ID(operatorRole, "ann")}
		go func() {
			synctest.Wait()
			m.keeper.SetTrust(nil, []string{"operator/ann"})
		}()
		_ = listOnce(rpc.Forward(t.Context(), ann, gateway.ID()), conn)
		if cause := <-got; !errs.Is(cause, errs.Denied) {
			t.Errorf("the handler's context ended with %v", cause)
		}
		if err := listOnce(rpc.Forward(t.Context(), ann, gateway.ID()), conn); !errs.Is(err, errs.Denied) {
			t.Errorf("the next call: %v", err)
		}
		_ = conn.Close()
		m.end(t)
	})
}

func TestHandlersSeeTheVerifiedCaller(t *testing.T) {
	w := newWorld(t)
	m := w.serve(t, w.keeper(t, storeRole, "m1"), "a:1")
	var seen rpc.Caller
	m.list = func(ctx context.Context) error {
		seen, _ = rpc.CallerOf(ctx)
		return nil
	}
	gateway, second, ann := w.keeper(t, gatewayRole, "g"), w.keeper(t, storeRole, "m2"), w.ca.ID(operatorRole, "ann")
	ctx := rpc.Forward(t.Context(), rpc.Caller{Principal: ann}, gateway.ID())
	if err := patient(t, func() error { return listOnce(ctx, w.dial(t, gateway, "a:1")) }); err != nil {
		t.Fatal(err)
	}
	if seen.Principal != ann || len(seen.Via) != 1 || seen.Via[0] != gateway.ID() {
		t.Errorf("by a gateway: %v", seen)
	}
	ctx = rpc.Forward(t.Context(), seen, second.ID())
	if err := listOnce(ctx, w.dial(t, second, "a:1")); err != nil {
		t.Fatal(err)
	}
	if seen.Principal != ann || len(seen.Via) != 2 || seen.Via[0] != gateway.ID() || seen.Via[1] != second.ID() {
		t.Errorf("by a gateway and a store: %v", seen)
	}
	if err := listOnce(t.Context(), w.dial(t, w.keeper(t, operatorRole, "ann"), "a:1")); err != nil {
		t.Fatal(err)
	}
	if seen.Principal != ann || len(seen.Via) != 0 {
		t.Errorf("directly: %v", seen)
	}
}

// Whoever may not pass calls on must not run as itself either when it claims to be somebody.
func TestAClaimToBeSomebodyElseIsRefusedNotIgnored(t *testing.T) {
	w := newWorld(t)
	m := w.serve(t, w.keeper(t, storeRole, "m1"), "a:1")
	ann, eve := w.ca.ID(operatorRole, "ann").URI(), "spiffe://c2/operator/eve"
	conns := map[string]*grpc.ClientConn{}
	for name, k := range map[string]*identity.Keeper{
		"operator": w.keeper(t, operatorRole, "bob"), "scheduler": w.keeper(t, schedulerRole, "s"), "gateway": w.keeper(t, gatewayRole, "g"),
	} {
		conns[name] = w.dial(t, k, "a:1")
	}
	if err := patient(t, func() error { return listOnce(t.Context(), conns["operator"]) }); err != nil {
		t.Fatal(err)
	}
	before := m.calls.Load()
	for _, c := range []struct {
		from   string
		values []string
	}{
		{"operator", []string{ann}},
		{"operator", []string{w.ca.ID(operatorRole, "bob").URI()}},
		{"operator", []string{""}},
		{"scheduler", []string{ann}},
		{"gateway", []string{eve}},
		{"gateway", []string{ann, ann}},
		{"gateway", []string{ann + " " + ann + " " + ann + " " + ann + " " + ann}},
		{"gateway", []string{ann + " rubbish"}},
		{"gateway", []string{" " + ann}},
		{"gateway", []string{w.ca.ID(schedulerRole, "s").URI()}},
		{"gateway", []string{"spiffe://c1/anonymous/x"}},
		{"gateway", []string{ann + " " + w.ca.ID(storeRole, "m1").URI()}},
	} {
		ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"shoal-caller": c.values})
		if err := listOnce(ctx, conns[c.from]); !errs.Is(err, errs.Denied) {
			t.Errorf("%s with %q: %v", c.from, c.values, err)
		}
	}
	if m.calls.Load() != before {
		t.Error("a handler was reached")
	}
}
