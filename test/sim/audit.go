package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Audit follows every revision of a cluster and checks what must hold at each of them: observed states only rise, a task
// never moves, claims are unique, a slot has one live task, a lease changes hands by a higher number only, and no machine
// is taken for down that nothing has touched.
type Audit struct {
	c       *Cluster
	touched func(hostname string) bool
	conns   map[*Machine]*grpc.ClientConn // to each store

	mu     sync.Mutex // guards all below
	snap   *state.Snapshot
	claims map[string]state.Key
	faults []string
	effect Hits
	each   func(was *state.Snapshot, d *storev1.Delta)
}

// auditDir is where the desk keeps the identity that the audit watches with.
const auditDir = "/home/operator/audit"

// NewAudit begins to watch, with a copy of a scheduler's identity. Touched tells whether a fault has hit a machine.
func NewAudit(c *Cluster, touched func(hostname string) bool) *Audit {
	c.t.Helper()
	desk, first := c.W.Host("desk"), c.Machines[0]
	for _, name := range []string{identity.CertFile, identity.KeyFile, identity.BundleFile} {
		data, err := first.Disk.Files().Read("/var/lib/shoal/scheduler/identity/" + name)
		if err != nil {
			c.t.Fatal(err)
		}
		if err := desk.Disk.Files().Write(auditDir+"/"+name, data, 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	a := &Audit{
		c: c, touched: touched, conns: map[*Machine]*grpc.ClientConn{},
		snap: state.Empty(), claims: map[string]state.Key{}, effect: Hits{},
	}
	ready := make(chan error, 1)
	err := desk.Start("audit", func(ctx context.Context, env run.Env) error {
		err := a.dial(env)
		ready <- err
		if err == nil {
			a.follow(ctx)
		}
		for _, conn := range a.conns {
			err = conn.Close()
		}
		return err
	})
	if err == nil {
		err = <-ready
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// Each has f called at each revision, with what was there before. It must not block.
func (a *Audit) Each(f func(was *state.Snapshot, d *storev1.Delta)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.each = f
}

func (a *Audit) dial(env run.Env) error {
	keeper, err := identity.Load(env, auditDir)
	if err != nil {
		return err
	}
	for _, m := range a.c.With(authzv1.Role_ROLE_STORE) {
		if a.conns[m], err = rpc.DialAddress(env, keeper, m.Address+":2381", authzv1.Role_ROLE_STORE); err != nil {
			return err
		}
	}
	return nil
}

// follow watches one store after another until ctx ends.
func (a *Audit) follow(ctx context.Context) {
	for ctx.Err() == nil {
		for _, m := range a.c.With(authzv1.Role_ROLE_STORE) {
			a.watch(ctx, m)
			if run.Sleep(ctx, 100*time.Millisecond) != nil {
				return
			}
		}
	}
}

// watch takes what one store sends until it is silent or the stream ends.
func (a *Audit) watch(ctx context.Context, m *Machine) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(3*time.Second, cancel)
	defer silence.Stop()
	in, err := storev1.NewWatchServiceClient(a.conns[m]).Watch(ctx, &storev1.WatchRequest{From: a.version(), Kinds: state.Kinds()})
	if err != nil {
		return
	}
	var building *state.Txn
	for {
		msg, err := in.Recv()
		if err != nil {
			return
		}
		silence.Reset(3 * time.Second)
		switch e := msg.GetEvent().(type) {
		case *storev1.WatchResponse_Chunk:
			if building == nil {
				building = state.Empty().Begin()
			}
			for _, o := range e.Chunk.GetObjects() {
				building.Put(o)
			}
			if e.Chunk.GetLast() {
				a.replace(building.Commit(state.VersionOf(e.Chunk.GetVersion()), e.Chunk.GetClusterTime().AsTime()))
				building = nil
			}
		case *storev1.WatchResponse_Delta:
			a.apply(e.Delta)
		}
	}
}

func (a *Audit) version() *typesv1.Version {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.snap.Version().IsZero() {
		return nil
	}
	return a.snap.Version().Proto()
}

// replace takes a whole snapshot as if it were one revision.
func (a *Audit) replace(next *state.Snapshot) {
	d := &storev1.Delta{Version: next.Version().Proto()}
	for o := range next.Objects() {
		d.Puts = append(d.Puts, o)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for o := range a.snap.Objects() {
		if next.Get(state.KeyOf(o)) == nil {
			key := state.KeyOf(o)
			d.Deletes = append(d.Deletes, &storev1.Delete{Kind: key.Kind, Id: key.ID})
		}
	}
	a.step(d, next)
}

func (a *Audit) apply(d *storev1.Delta) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if state.VersionOf(d.GetVersion()).Revision <= a.snap.Version().Revision {
		a.fault("revision %d came after revision %d", d.GetVersion().GetRevision(), a.snap.Version().Revision)
		return
	}
	a.step(d, a.snap.Apply(d))
}

// step checks one revision. It needs the lock, as all below do.
func (a *Audit) step(d *storev1.Delta, next *state.Snapshot) {
	was := a.snap
	if a.each != nil {
		a.each(was, d)
	}
	a.checkClaims(d, was)
	for _, o := range d.GetPuts() {
		old := was.Get(state.KeyOf(o))
		switch k := o.GetKind().(type) {
		case *typesv1.Object_Task:
			a.checkTask(k.Task, old.GetTask(), next)
		case *typesv1.Object_Lease:
			a.checkLease(k.Lease, old.GetLease())
		case *typesv1.Object_Node:
			a.checkNode(k.Node, old.GetNode())
		}
	}
	a.snap = next
}

func (a *Audit) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(a.faults) < 20 {
		a.faults = append(a.faults, fmt.Sprintf("revision %d, %s: %s", a.snap.Version().Revision, time.Now().Format("15:04:05.000"), text))
	}
}

func (a *Audit) checkClaims(d *storev1.Delta, was *state.Snapshot) {
	release := func(key state.Key) {
		if old := was.Get(key); old != nil {
			for _, claim := range state.Claims(old) {
				delete(a.claims, claim)
			}
		}
	}
	for _, x := range d.GetDeletes() {
		release(state.Key{Kind: x.GetKind(), ID: x.GetId()})
	}
	for _, o := range d.GetPuts() {
		release(state.KeyOf(o))
	}
	for _, o := range d.GetPuts() {
		for _, claim := range state.Claims(o) {
			if other, taken := a.claims[claim]; taken {
				a.fault("%s is held by %s and by %s", claim, other, state.KeyOf(o))
			}
			a.claims[claim] = state.KeyOf(o)
		}
	}
}

func (a *Audit) checkTask(now, was *typesv1.Task, next *state.Snapshot) {
	id := now.GetMeta().GetId()
	if was != nil {
		x, y := was.GetObserved(), now.GetObserved()
		if y.GetAttempt() < x.GetAttempt() || y.GetAttempt() == x.GetAttempt() && y.GetState() < x.GetState() {
			a.fault("task %s fell from attempt %d, %s to attempt %d, %s", id, x.GetAttempt(), x.GetState(), y.GetAttempt(), y.GetState())
		}
		if y.GetAttempt() > x.GetAttempt() {
			a.effect["effect: a container was started anew for its task"]++
		}
		if now.GetDecided().GetDesired() < was.GetDecided().GetDesired() {
			a.fault("task %s: desired fell from %s to %s", id, was.GetDecided().GetDesired(), now.GetDecided().GetDesired())
		}
		if from := was.GetDecided().GetNodeId(); from != "" && now.GetDecided().GetNodeId() != from {
			a.fault("task %s moved from machine %s to %q", id, from, now.GetDecided().GetNodeId())
		}
	}
	slot, live := now.GetDecided().GetSlot(), []string{}
	for t := range next.TasksOfSlot(now.GetServiceId(), slot) {
		if slot != 0 && t.GetDecided().GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && !t.GetDecided().GetAbandoned() &&
			!state.Terminal(t.GetObserved().GetState()) {
			live = append(live, t.GetMeta().GetId())
		}
	}
	if len(live) > 1 {
		a.fault("slot %d of service %s has the tasks %s", slot, now.GetServiceId(), strings.Join(live, ", "))
	}
}

func (a *Audit) checkLease(now, was *typesv1.Lease) {
	id := now.GetMeta().GetId()
	if now.GetNumber() < was.GetNumber() {
		a.fault("lease %s fell from number %d to %d", id, was.GetNumber(), now.GetNumber())
	}
	if was.GetHolder() != "" && now.GetHolder() != "" && now.GetHolder() != was.GetHolder() {
		a.effect["effect: lease "+strings.Split(id, "/")[0]+" taken over"]++
		if now.GetNumber() == was.GetNumber() {
			a.fault("lease %s: number %d went from %s to %s", id, now.GetNumber(), was.GetHolder(), now.GetHolder())
		}
	}
}

func (a *Audit) checkNode(now, was *typesv1.Node) {
	host, down := now.GetIdentity().GetHostname(), typesv1.NodeState_NODE_STATE_DOWN
	if was != nil && now.GetStatus().GetState() == down && was.GetStatus().GetState() != down {
		a.effect["effect: machine declared down"]++
		if !a.touched(host) {
			a.fault("%s is declared down, and nothing has touched it", host)
		}
	}
	from, to := was.GetStatus().GetSession(), now.GetStatus().GetSession()
	if to.GetNumber() < from.GetNumber() {
		a.fault("%s: session number fell from %d to %d", host, from.GetNumber(), to.GetNumber())
	}
	if from.GetDispatcherId() != "" && from.GetDispatcherId() != to.GetDispatcherId() {
		a.effect["effect: session moved to the other dispatcher"]++
	}
}

// Snapshot is the state at the newest revision seen.
func (a *Audit) Snapshot() *state.Snapshot {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.snap
}

// Report fails the test for what was found since the last call, and adds to hits what the faults have led to.
func (a *Audit) Report(hits Hits) {
	a.c.t.Helper()
	a.mu.Lock()
	faults, effect := a.faults, a.effect
	a.faults, a.effect = nil, Hits{}
	a.mu.Unlock()
	for _, f := range faults {
		a.c.t.Error(f)
	}
	for k, n := range effect {
		hits[k] += n
	}
}

// Agree waits until all stores hold the same objects and every replica has reached their revision.
func (a *Audit) Agree(within time.Duration) {
	a.c.t.Helper()
	a.c.Until("stores and replicas agree", within, func() string {
		stores := a.c.With(authzv1.Role_ROLE_STORE)
		first, err := a.image(stores[0])
		if err != nil {
			return err.Error()
		}
		for _, m := range stores[1:] {
			other, err := a.image(m)
			if err != nil {
				return fmt.Sprintf("store on %s: %v", m.Name, err)
			}
			if wrong := differ(first, other); wrong != "" {
				return fmt.Sprintf("stores on %s and %s: %s", stores[0].Name, m.Name, wrong)
			}
		}
		return a.replicas(float64(first.Version().Revision))
	})
}

// image reads a store's whole state by a watch of its own.
func (a *Audit) image(m *Machine) (*state.Snapshot, error) {
	ctx, cancel := context.WithTimeout(a.c.t.Context(), callTimeout)
	defer cancel()
	in, err := storev1.NewWatchServiceClient(a.conns[m]).Watch(ctx, &storev1.WatchRequest{Kinds: state.Kinds()})
	if err != nil {
		return nil, err
	}
	t := state.Empty().Begin()
	for {
		msg, err := in.Recv()
		if err != nil {
			return nil, err
		}
		for _, o := range msg.GetChunk().GetObjects() {
			t.Put(o)
		}
		if msg.GetChunk().GetLast() {
			return t.Commit(state.VersionOf(msg.GetChunk().GetVersion()), msg.GetChunk().GetClusterTime().AsTime()), nil
		}
	}
}

func differ(a, b *state.Snapshot) string {
	if a.Version() != b.Version() {
		return fmt.Sprintf("revisions %d and %d", a.Version().Revision, b.Version().Revision)
	}
	x, y := slices.Collect(a.Objects()), slices.Collect(b.Objects())
	if len(x) != len(y) {
		return fmt.Sprintf("%d and %d objects", len(x), len(y))
	}
	for i := range x {
		if !proto.Equal(x[i], y[i]) {
			return fmt.Sprintf("%s differs", state.KeyOf(x[i]))
		}
	}
	return ""
}

// replicas finds a process whose replica is behind a revision that was seen before.
func (a *Audit) replicas(revision float64) string {
	for _, m := range a.c.Machines {
		for _, r := range m.Roles {
			name := identity.RoleName(r)
			if at, has := m.Gauge(name, "shoal_replica_revision"); has && at < revision {
				return fmt.Sprintf("the replica of %s on %s is at revision %.0f, the stores are at %.0f", name, m.Name, at, revision)
			}
		}
	}
	return ""
}
