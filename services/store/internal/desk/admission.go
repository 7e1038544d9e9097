// Package desk makes transactions of requests, one after another, each aware of those that are on their way.
//
// It owns the order of admission, and the choice of ports, subnets and addresses. It must never write anything that its
// caller's transaction does not carry. A new leader misses nothing of it but what was given back lately and the order of
// choice, on which nothing rests. An Admission is safe for concurrent use; a Desk is its caller's while it builds.
package desk

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/alloc"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
	"github.com/shoalproject/shoal/services/store/internal/relay"
)

// MaxTries bounds how often a choice is made again because somebody else was faster with what was chosen.
const MaxTries = 5

// Node is the part of a Raft member that an Admission needs.
type Node interface {
	View() *raftnode.View
	Linear(ctx context.Context) (fsm.Image, error)
	Propose(ctx context.Context, tx *storev1.Transaction) (*storev1.Outcome, error)
	ClusterTime() time.Time
}

// Admission makes transactions one after another, each aware of what those before it, still on their way through Raft,
// have claimed. So many creates share one entry and none of them gets a port that another has.
type Admission struct {
	node Node

	mu      sync.Mutex // guards all below
	flights map[string]*flight
	cursors alloc.Cursors
	resting map[string]time.Time // claims that were given back, and until when (cluster time) they are chosen last
}

// flight is a transaction on its way. It is under each of its claims.
type flight struct {
	landed   chan struct{}
	claims   []string
	released []string // what it gives back, if it is applied
}

// New makes one for a store.
func New(n Node) *Admission {
	return &Admission{node: n, flights: map[string]*flight{}, resting: map[string]time.Time{}}
}

// Desk is where one transaction is made, with the admission's lock held.
type Desk struct {
	Snap *state.Snapshot

	a *Admission
}

// Taken reports whether a claim is held, or about to be.
func (d *Desk) Taken(claim string) bool {
	if _, ok := d.Snap.ClaimHolder(claim); ok {
		return true
	}
	_, ok := d.a.flights[claim]
	return ok
}

// fresh is taken for a choice: what was given back lately is left alone too, so that old flows do not reach a stranger.
func (d *Desk) fresh(claim string) bool {
	until, rests := d.a.resting[claim]
	return d.Taken(claim) || (rests && d.a.node.ClusterTime().Before(until))
}

// subnets are the subnets that are in use or about to be.
func (d *Desk) subnets() []netip.Prefix {
	var out []netip.Prefix
	add := func(claim string) {
		if p, err := netip.ParsePrefix(strings.TrimPrefix(claim, state.SubnetClaim(""))); err == nil {
			out = append(out, p)
		}
	}
	for claim := range d.Snap.ClaimsFrom(state.SubnetClaim("")) {
		add(claim)
	}
	for claim := range d.a.flights {
		if strings.HasPrefix(claim, state.SubnetClaim("")) {
			add(claim)
		}
	}
	return out
}

// Look judges a state without making a transaction of it.
func (a *Admission) Look(snap *state.Snapshot, judge func(d *Desk) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return judge(&Desk{Snap: snap, a: a})
}

// Build makes the transaction of a request, without request id and caller. It must not block.
type Build func(d *Desk) (*storev1.Transaction, error)

// Commit makes the transaction and has it applied. A request id that has an outcome returns that one.
func (a *Admission) Commit(ctx context.Context, caller rpc.Caller, requestID string, made Build) (*storev1.Outcome, error) {
	for try := 1; ; try++ {
		tx, f, first, err := a.admit(ctx, caller, requestID, made)
		if err != nil {
			return nil, err
		}
		if first != nil {
			return first, Refusal(first)
		}
		out, err := a.node.Propose(ctx, tx)
		a.land(f, err == nil && out.GetRefusal() == storev1.RefusalReason_REFUSAL_REASON_UNSPECIFIED)
		if err != nil {
			return nil, err
		}
		if claimed(out) && try < MaxTries {
			continue // somebody was faster with what was chosen here: choose again, or say by whom a wish is taken
		}
		return out, Refusal(out)
	}
}

// admit builds under the lock, and waits where an explicit choice clashes with one that is on its way: that one may be
// refused yet.
func (a *Admission) admit(ctx context.Context, caller rpc.Caller, requestID string, made Build) (*storev1.Transaction, *flight, *storev1.Outcome, error) {
	var confirmed *state.Snapshot
	for {
		tx, f, first, wait, err := a.tryAdmit(confirmed, caller, requestID, made)
		if wait == nil && err != nil && confirmed == nil {
			// This store may have lost the leadership without knowing: a refusal must not rest on what another leader has
			// changed meanwhile. What is proposed need not be confirmed, the log does that.
			image, lost := a.node.Linear(ctx)
			if lost != nil {
				return nil, nil, nil, lost
			}
			confirmed = image.Snapshot()
			continue
		}
		if wait == nil {
			return tx, f, first, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, nil, nil, errs.New(errs.Unavailable, "another request for the same is under way: %w", ctx.Err())
		}
	}
}

// tryAdmit judges by the state of this store, or by the confirmed one if that is newer.
func (a *Admission) tryAdmit(confirmed *state.Snapshot, caller rpc.Caller, requestID string, made Build) (*storev1.Transaction, *flight, *storev1.Outcome, <-chan struct{}, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	image := a.node.View().Image
	own := relay.CallerProto(caller)
	requestID, first := latest(image, own, requestID)
	if first != nil {
		return nil, nil, first, nil, nil
	}
	snap := image.Snapshot()
	if confirmed != nil && confirmed.Version().Revision > snap.Version().Revision {
		snap = confirmed
	}
	tx, err := made(&Desk{Snap: snap, a: a})
	if err != nil {
		return nil, nil, nil, nil, err
	}
	tx.RequestId, tx.Caller = requestID, own
	if size := proto.Size(tx); size > fsm.MaxBytes {
		return nil, nil, nil, nil, tooLarge(size)
	}
	claims := claimsOf(tx)
	for _, c := range claims {
		if f := a.flights[c]; f != nil {
			return nil, nil, nil, f.landed, nil
		}
	}
	f := &flight{landed: newLanding(), claims: claims, released: releasedBy(snap, tx)}
	for _, c := range claims {
		a.flights[c] = f
	}
	return tx, f, nil, nil, nil
}

// latest is the outcome of a request, if it has one. A try that lost what it had chosen is followed by another one under
// an id of its own, for its refusal is remembered too: who repeats the request is told of the last.
func latest(image fsm.Image, caller *storev1.Caller, requestID string) (string, *storev1.Outcome) {
	for range MaxTries {
		first := image.Remembered(caller, requestID)
		if first == nil || !claimed(first) {
			return requestID, first
		}
		requestID += "+"
	}
	return requestID, image.Remembered(caller, requestID)
}

func claimed(out *storev1.Outcome) bool {
	return out.GetRefusal() == storev1.RefusalReason_REFUSAL_REASON_CLAIMED
}

func newLanding() chan struct{} { return make(chan struct{}) }

// claimsOf is what the transaction will hold: the claims of its objects, what it removes, so that who removes the same looks
// again, and the request itself, so that a repetition waits for the first. What an object holds already is among them, which
// does no harm.
func claimsOf(tx *storev1.Transaction) []string {
	out := []string{"request/" + relayKey(tx)}
	for _, p := range tx.GetPuts() {
		out = append(out, state.Claims(p.GetObject())...)
		for _, c := range p.GetObject().GetService().GetEndpoint().GetPorts() {
			if state.OnHost(c) { // no claim of the state, but who publishes it on every machine meanwhile must look again
				out = append(out, state.PortClaim(c.GetProtocol(), c.GetPublishedPort()))
			}
		}
	}
	for _, d := range tx.GetDeletes() {
		out = append(out, DeleteClaim(d.GetKind(), d.GetId()))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// DeleteClaim is held by a transaction that removes an object, while it is on its way.
func DeleteClaim(kind typesv1.Kind, id string) string {
	return "delete/" + state.KindName(kind) + "/" + id
}

func relayKey(tx *storev1.Transaction) string {
	return tx.GetCaller().GetRole().String() + "/" + tx.GetCaller().GetName() + "/" + tx.GetRequestId()
}

// releasedBy are the ports and addresses that the transaction gives back.
func releasedBy(snap *state.Snapshot, tx *storev1.Transaction) []string {
	kept := claimsOf(tx)
	var out []string
	add := func(old *typesv1.Object) {
		for _, c := range state.Claims(old) {
			if (strings.HasPrefix(c, "port/") || strings.HasPrefix(c, "address/")) && !slices.Contains(kept, c) {
				out = append(out, c)
			}
		}
	}
	for _, d := range tx.GetDeletes() {
		add(snap.Get(state.Key{Kind: d.GetKind(), ID: d.GetId()}))
	}
	for _, p := range tx.GetPuts() {
		add(snap.Get(state.KeyOf(p.GetObject())))
	}
	return out
}

// rest is how long what was given back is chosen last. A new leader does not know what was given back before it.
const rest = 5 * time.Minute

// land gives the claims free: by now the state has them, or nobody.
func (a *Admission) land(f *flight, applied bool) {
	now := a.node.ClusterTime()
	a.mu.Lock()
	for _, c := range f.claims {
		delete(a.flights, c)
	}
	for c, until := range a.resting {
		if until.Before(now) {
			delete(a.resting, c)
		}
	}
	if applied {
		for _, c := range f.released {
			a.resting[c] = now.Add(rest)
		}
	}
	a.mu.Unlock()
	close(f.landed)
}

// Refusal is an outcome as an error; nil when it was applied.
func Refusal(out *storev1.Outcome) error {
	kind := errs.Internal
	switch out.GetRefusal() {
	case storev1.RefusalReason_REFUSAL_REASON_UNSPECIFIED:
		return nil
	case storev1.RefusalReason_REFUSAL_REASON_CONFLICT, storev1.RefusalReason_REFUSAL_REASON_FENCED:
		kind = errs.Conflict
	case storev1.RefusalReason_REFUSAL_REASON_EXISTS, storev1.RefusalReason_REFUSAL_REASON_CLAIMED:
		kind = errs.Exists
	case storev1.RefusalReason_REFUSAL_REASON_NOT_FOUND:
		kind = errs.NotFound
	case storev1.RefusalReason_REFUSAL_REASON_IN_USE:
		kind = errs.Precondition
	case storev1.RefusalReason_REFUSAL_REASON_DENIED:
		kind = errs.Denied
	case storev1.RefusalReason_REFUSAL_REASON_INVALID:
		kind = errs.Invalid
	}
	return errs.New(kind, "%s", out.GetMessage())
}

// Put changes the given fields of an object: those that a person writes.
func Put(o *typesv1.Object, fields ...string) *storev1.Put {
	return &storev1.Put{Object: o, Fields: fields}
}

// Create makes an object with the given fields.
func Create(o *typesv1.Object, fields ...string) *storev1.Put {
	return &storev1.Put{Object: o, Fields: fields, Create: true}
}
