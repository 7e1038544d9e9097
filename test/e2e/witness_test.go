package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const storePort = "2381"

// witness sees every revision of the store, so that a test can say what was never so between two moments, and in which
// order things came, whenever it looks. It follows the store as the scheduler of a host does, with that one's certificate.
type witness struct {
	mu      sync.Mutex        // guards below
	seen    []*state.Snapshot // one a revision, without a gap
	changed chan struct{}     // closed and replaced with each
	lost    error             // why a gap could not be helped
}

// watched has a cluster followed by a witness until the test ends. The stores of the hosts are asked in turn when one dies.
func (c *cluster) watched(hosts ...string) *cluster {
	c.t.Helper()
	env := run.Machine("witness")
	env.Log = slog.New(slog.DiscardHandler)
	keeper, err := identity.Load(env, filepath.Join(c.dir, "hosts", hosts[0], "var", "lib", "shoal", "scheduler", "identity"))
	c.must(err)
	var stores []storev1.WatchServiceClient
	for _, host := range hosts {
		conn, err := rpc.DialAddress(env, keeper, net.JoinHostPort(c.address(host), storePort), authzv1.Role_ROLE_STORE)
		c.must(err)
		c.t.Cleanup(func() { _ = conn.Close() }) // it was read from alone
		stores = append(stores, storev1.NewWatchServiceClient(conn))
	}
	w := &witness{seen: []*state.Snapshot{state.Empty()}, changed: make(chan struct{})}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(c.t.Context())
	c.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil && w.whole() == nil; i++ {
			w.follow(ctx, stores[i%len(stores)])
			_ = run.Sleep(ctx, 50*time.Millisecond) // the loop sees the end of ctx
		}
	}()
	c.witness = w
	c.sees("the witness follows", 10*time.Second, func(s *state.Snapshot) string {
		return unless(fmt.Sprint(s.Version().IsZero()), "false")
	})
	return c
}

func (w *witness) whole() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// follow takes what one store sends until the stream breaks.
func (w *witness) follow(ctx context.Context, store storev1.WatchServiceClient) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(3*time.Second, cancel) // bookmarks come twice a second
	defer silence.Stop()
	last := w.last()
	req := &storev1.WatchRequest{Kinds: []typesv1.Kind{
		typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_NODE, typesv1.Kind_KIND_SERVICE, typesv1.Kind_KIND_TASK, typesv1.Kind_KIND_NETWORK, typesv1.Kind_KIND_LEASE,
	}}
	if v := last.Version(); !v.IsZero() {
		req.From = v.Proto()
	}
	in, err := store.Watch(ctx, req)
	if err != nil {
		return
	}
	first := state.Empty().Begin()
	for {
		msg, err := in.Recv()
		if err != nil {
			return
		}
		silence.Reset(3 * time.Second)
		switch e := msg.GetEvent().(type) {
		case *storev1.WatchResponse_Chunk:
			for _, o := range e.Chunk.GetObjects() {
				first.Put(o)
			}
			if e.Chunk.GetLast() {
				last = first.Commit(state.VersionOf(e.Chunk.GetVersion()), e.Chunk.GetClusterTime().AsTime())
				w.add(last)
			}
		case *storev1.WatchResponse_Delta:
			if state.VersionOf(e.Delta.GetVersion()).Revision > last.Version().Revision {
				last = last.Apply(e.Delta)
				w.add(last)
			}
		case *storev1.WatchResponse_Resync:
			w.miss(fmt.Errorf("the store can't say what came after revision %d: %s", last.Version().Revision, e.Resync.GetReason()))
			return
		}
	}
}

func (w *witness) last() *state.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[len(w.seen)-1]
}

func (w *witness) add(s *state.Snapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, s)
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *witness) miss(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = err
	close(w.changed)
	w.changed = make(chan struct{})
}

// next is the newest state, and what closes when there is a newer one.
func (w *witness) next() (*state.Snapshot, <-chan struct{}, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[len(w.seen)-1], w.changed, w.lost
}

// from are the states from a moment on, that one first.
func (w *witness) from(moment *state.Snapshot) []*state.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[slices.Index(w.seen, moment):]
}

// now is the newest state.
func (c *cluster) now() *state.Snapshot { return c.witness.last() }

// sees waits until the newest state has nothing wrong, and returns that state.
func (c *cluster) sees(what string, within time.Duration, wrong func(*state.Snapshot) string) *state.Snapshot {
	c.t.Helper()
	limit := time.NewTimer(within)
	defer limit.Stop()
	for {
		s, changed, lost := c.witness.next()
		if lost != nil {
			c.t.Fatal(lost)
		}
		said := wrong(s)
		if said == "" {
			return s
		}
		select {
		case <-changed:
		case <-limit.C:
			c.t.Fatalf("%s: not within %s; last seen: %s", what, within, said)
		}
	}
}

// never checks every state from a moment on.
func (c *cluster) never(from *state.Snapshot, wrong func(*state.Snapshot) string) {
	c.t.Helper()
	for _, s := range c.witness.from(from) {
		if said := wrong(s); said != "" {
			c.t.Errorf("at revision %d: %s", s.Version().Revision, said)
			return // the first tells enough
		}
	}
}

// phases are the words for the states from a moment on, each once in a row.
func (c *cluster) phases(from *state.Snapshot, word func(*state.Snapshot) string) []string {
	var out []string
	for _, s := range c.witness.from(from) {
		out = append(out, word(s))
	}
	return slices.Compact(out)
}

// inOrder checks that the wanted ones are among those seen, in this order.
func (c *cluster) inOrder(seen []string, want ...string) {
	c.t.Helper()
	rest := seen
	for _, w := range want {
		i := slices.Index(rest, w)
		if i < 0 {
			c.t.Errorf("seen were %s: no %q in its place among %v", strings.Join(seen, " "), w, want)
			return
		}
		rest = rest[i+1:]
	}
}
