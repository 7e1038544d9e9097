package fsm

import (
	"fmt"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// attempt is one transaction on its way. Nothing of it is seen before it has passed whole.
type attempt struct {
	machine  *Machine
	tx       *storev1.Transaction
	txn      *state.Txn
	at       time.Time
	revision uint64
	begins   bool // it is the first of a history

	puts []*typesv1.Object
}

// run is nil when the transaction may be committed.
func (a *attempt) run() *storev1.Outcome {
	for _, step := range []func() *storev1.Outcome{a.wellFormed, a.preconditions, a.applyPuts, a.applyDeletes, a.references, a.claims} {
		if r := step(); r != nil {
			return r
		}
	}
	return nil
}

// subject is the first object that was put; who repeats a create finds by it what the first try has made.
func (a *attempt) subject() *storev1.Delete {
	if len(a.puts) == 0 {
		return nil
	}
	return subjectOf(state.KeyOf(a.puts[0]))
}

func subjectOf(k state.Key) *storev1.Delete { return &storev1.Delete{Kind: k.Kind, Id: k.ID} }

func refuse(reason storev1.RefusalReason, key state.Key, format string, args ...any) *storev1.Outcome {
	out := &storev1.Outcome{Refusal: reason, Message: fmt.Sprintf(format, args...)}
	if key.ID != "" {
		out.Subject = subjectOf(key)
	}
	return out
}

func invalid(key state.Key, format string, args ...any) *storev1.Outcome {
	return refuse(storev1.RefusalReason_REFUSAL_REASON_INVALID, key, format, args...)
}

func denied(key state.Key, format string, args ...any) *storev1.Outcome {
	return refuse(storev1.RefusalReason_REFUSAL_REASON_DENIED, key, format, args...)
}

func conflict(key state.Key, format string, args ...any) *storev1.Outcome {
	return refuse(storev1.RefusalReason_REFUSAL_REASON_CONFLICT, key, format, args...)
}

// wellFormed refuses what makes no sense before anything is looked at.
func (a *attempt) wellFormed() *storev1.Outcome {
	if n := len(a.tx.GetPuts()) + len(a.tx.GetDeletes()); n > MaxChanges && !a.begins {
		return invalid(state.Key{}, "%d changes are more than %d", n, MaxChanges)
	}
	if a.tx.GetRequestId() == "" && !a.begins {
		return invalid(state.Key{}, "a transaction needs a request id")
	}
	seen := map[state.Key]bool{}
	for i, p := range a.tx.GetPuts() {
		key := state.KeyOf(p.GetObject())
		if key.Kind == typesv1.Kind_KIND_UNSPECIFIED || key.ID == "" {
			return invalid(state.Key{}, "put %d has no kind or no id", i)
		}
		if seen[key] {
			return invalid(key, "%s is in the transaction twice", key)
		}
		seen[key] = true
	}
	for _, d := range a.tx.GetDeletes() {
		key := state.Key{Kind: d.GetKind(), ID: d.GetId()}
		if seen[key] {
			return invalid(key, "%s is in the transaction twice", key)
		}
		seen[key] = true
	}
	return nil
}

func (a *attempt) preconditions() *storev1.Outcome {
	for _, p := range a.tx.GetPreconditions() {
		if r := a.precondition(p); r != nil {
			return r
		}
	}
	return nil
}

func (a *attempt) precondition(p *storev1.Precondition) *storev1.Outcome {
	switch c := p.GetCondition().(type) {
	case *storev1.Precondition_Unchanged:
		return a.unchanged(c.Unchanged)
	case *storev1.Precondition_Fence:
		return a.fence(c.Fence)
	case *storev1.Precondition_Session:
		return a.session(c.Session)
	case *storev1.Precondition_Epoch:
		v := a.machine.snap.Version()
		if !a.begins && (c.Epoch.GetNumber() != v.EpochNumber || c.Epoch.GetNonce() != v.EpochNonce) {
			return conflict(state.Key{}, "update out of sequence: the history is another one (epoch %d)", v.EpochNumber)
		}
		return nil
	}
	// A condition that this release does not know must not count as met.
	return invalid(state.Key{}, "a precondition is empty or of a newer release")
}

func (a *attempt) unchanged(u *storev1.Unchanged) *storev1.Outcome {
	key := state.Key{Kind: u.GetKind(), ID: u.GetId()}
	old := a.txn.Get(key)
	switch {
	case old == nil && u.GetRevision() == 0:
		return nil
	case old == nil:
		return refuse(storev1.RefusalReason_REFUSAL_REASON_NOT_FOUND, key, "%s is gone", key)
	case u.GetRevision() == 0:
		return refuse(storev1.RefusalReason_REFUSAL_REASON_EXISTS, key, "%s exists", key)
	case state.MetaOf(old).GetRevision() != u.GetRevision():
		return conflict(key, "update out of sequence: %s is at revision %d, not %d",
			key, state.MetaOf(old).GetRevision(), u.GetRevision())
	}
	return nil
}

// fence refuses who does not hold the lease (any more), also when the number is right but somebody else uses it.
func (a *attempt) fence(f *storev1.Fence) *storev1.Outcome {
	key := state.Key{Kind: typesv1.Kind_KIND_LEASE, ID: f.GetLease()}
	l := a.txn.Lease(f.GetLease())
	if l == nil || l.GetNumber() != f.GetNumber() || l.GetHolder() != f.GetHolder() || f.GetHolder() != CallerID(a.tx.GetCaller()) {
		return refuse(storev1.RefusalReason_REFUSAL_REASON_FENCED, key, "lease %q is held by %q with number %d, not by %q with %d",
			f.GetLease(), l.GetHolder(), l.GetNumber(), f.GetHolder(), f.GetNumber())
	}
	return nil
}

func (a *attempt) session(f *storev1.SessionFence) *storev1.Outcome {
	key := state.Key{Kind: typesv1.Kind_KIND_NODE, ID: f.GetNodeId()}
	s := a.txn.Node(f.GetNodeId()).GetStatus().GetSession()
	if s.GetNumber() != f.GetNumber() || s.GetDispatcherId() != f.GetDispatcherId() {
		return refuse(storev1.RefusalReason_REFUSAL_REASON_FENCED, key, "node %s is in session %d with dispatcher %q, not in %d with %q",
			f.GetNodeId(), s.GetNumber(), s.GetDispatcherId(), f.GetNumber(), f.GetDispatcherId())
	}
	return nil
}

// references refuses what would leave a reference without its target.
func (a *attempt) references() *storev1.Outcome {
	dangling := a.txn.Dangling()
	if len(dangling) == 0 {
		return nil
	}
	d := dangling[0]
	if a.txn.Get(d.From) != nil && a.machine.snap.Get(d.To) != nil {
		return refuse(storev1.RefusalReason_REFUSAL_REASON_IN_USE, d.From, "%s is in use by %s", a.named(d.To), a.named(d.From))
	}
	return refuse(storev1.RefusalReason_REFUSAL_REASON_NOT_FOUND, d.To, "%s, which %s needs, does not exist", d.To, a.named(d.From))
}

// claims refuses what two objects would hold.
func (a *attempt) claims() *storev1.Outcome {
	clashes := a.txn.Clashes()
	if len(clashes) == 0 {
		return nil
	}
	c := clashes[0]
	holder := c.First
	if old, ok := a.machine.snap.ClaimHolder(c.Claim); ok {
		holder = old
	}
	r := refuse(storev1.RefusalReason_REFUSAL_REASON_CLAIMED, holder, "%s is taken by %s", c.Claim, a.named(holder))
	r.Claim = c.Claim
	return r
}

// named calls an object as a person does.
func (a *attempt) named(k state.Key) string {
	o := a.txn.Get(k)
	if o == nil {
		o = a.machine.snap.Get(k)
	}
	name := k.ID
	switch k.Kind {
	case typesv1.Kind_KIND_SERVICE:
		name = o.GetService().GetSpec().GetAnnotations().GetName()
	case typesv1.Kind_KIND_NETWORK:
		name = o.GetNetwork().GetSpec().GetAnnotations().GetName()
	case typesv1.Kind_KIND_SECRET:
		name = o.GetSecret().GetAnnotations().GetName()
	case typesv1.Kind_KIND_CONFIG:
		name = o.GetConfig().GetAnnotations().GetName()
	case typesv1.Kind_KIND_REGISTRY:
		name = o.GetRegistry().GetAnnotations().GetName()
	default:
	}
	return state.KindName(k.Kind) + " " + name
}
