// Package fsm is the store's state machine: it applies transactions whole, or refuses them whole, in the order of the log.
//
// It owns the rules that hold whatever a caller says: preconditions, unique claims, references, one writer per field, what
// only rises, and that a repeated request gets its first outcome. It must never choose anything (ids, addresses and times
// are in the transaction), never do I/O and never read a clock: every member must come to the same result. A Machine
// belongs to one goroutine; the snapshots and images that it gives out never change.
package fsm

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Bounds of one transaction. Whoever proposes holds to them: an entry of the log must fit into one message between stores,
// and the memory of outcomes, which every store keeps, must stay small.
const (
	// MaxChanges is how many puts and deletes there are at most.
	MaxChanges = 1000
	// MaxBytes is its size at most, encoded.
	MaxBytes = 1 << 20
	// MaxRequestID is the length of the id at most.
	MaxRequestID = 64
)

// Machine is the state machine.
type Machine struct {
	writers Writers
	snap    *state.Snapshot
	memory  memory
}

// Result is what became of one transaction.
type Result struct {
	Outcome *storev1.Outcome
	// Delta is nil when nothing was applied: the transaction was refused, or is a repetition.
	Delta *storev1.Delta
}

// New is a machine before its first transaction.
func New(w Writers) *Machine { return &Machine{writers: w, snap: state.Empty(), memory: newMemory()} }

// Snapshot is the state after the last transaction.
func (m *Machine) Snapshot() *state.Snapshot { return m.snap }

// Begin applies the first transaction of a history. It is not held to the writers' table: it is made offline, by the CA's
// bootstrap, before there are callers.
func (m *Machine) Begin(epoch *typesv1.Epoch, tx *storev1.Transaction) *storev1.Outcome {
	if !m.snap.Version().IsZero() {
		return &storev1.Outcome{Refusal: storev1.RefusalReason_REFUSAL_REASON_EXISTS, Message: "the history has begun"}
	}
	next := state.Version{EpochNumber: epoch.GetNumber(), EpochNonce: epoch.GetNonce(), Revision: 1}
	return m.run(tx, next, true).Outcome
}

// Apply applies the transactions of one log entry, each as a revision of its own.
func (m *Machine) Apply(e *storev1.LogEntry) []Result {
	out := make([]Result, 0, len(e.GetTransactions()))
	for _, tx := range e.GetTransactions() {
		out = append(out, m.apply(tx))
	}
	return out
}

func (m *Machine) apply(tx *storev1.Transaction) Result {
	if first := m.memory.find(RequestKey(tx.GetCaller(), tx.GetRequestId())); first != nil {
		return Result{Outcome: first}
	}
	next := m.snap.Version()
	next.Revision++
	return m.run(tx, next, false)
}

// run applies or refuses, and remembers.
func (m *Machine) run(tx *storev1.Transaction, next state.Version, begins bool) Result {
	at := m.timeOf(tx)
	a := &attempt{machine: m, tx: tx, txn: m.snap.Begin(), at: at, revision: next.Revision, begins: begins}
	if r := a.run(); r != nil {
		r.Version = m.snap.Version().Proto()
		m.remember(tx, r, at)
		return Result{Outcome: r}
	}
	m.snap = a.txn.Commit(next, at)
	out := &storev1.Outcome{Version: next.Proto(), Subject: a.subject()}
	m.remember(tx, out, at)
	return Result{Outcome: out, Delta: &storev1.Delta{
		Version:     next.Proto(),
		ClusterTime: timestamppb.New(at),
		Puts:        a.puts,
		Deletes:     tx.GetDeletes(),
	}}
}

// timeOf is the transaction's time, or the last one if that is higher: cluster time never goes back in the log.
func (m *Machine) timeOf(tx *storev1.Transaction) time.Time {
	at := m.snap.ClusterTime()
	if t := tx.GetClusterTime(); t != nil && t.AsTime().After(at) {
		at = t.AsTime()
	}
	return at
}

func (m *Machine) remember(tx *storev1.Transaction, out *storev1.Outcome, at time.Time) {
	m.memory.add(RequestKey(tx.GetCaller(), tx.GetRequestId()), out, at)
}

// RequestKey names a request among those of all callers: ids that people choose need not differ from each other's.
func RequestKey(c *storev1.Caller, requestID string) string {
	if requestID == "" {
		return ""
	}
	return CallerID(c) + "/" + requestID
}

// CallerID is "role/name".
func CallerID(c *storev1.Caller) string {
	return roleName(c.GetRole()) + "/" + c.GetName()
}

// roleName is the role as identities have it: in lower case, without the enum's prefix.
func roleName(r authzv1.Role) string { return strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_")) }
