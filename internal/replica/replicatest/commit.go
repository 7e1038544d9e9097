package replicatest

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Commit applies one transaction or refuses it.
func (s *Store) Commit(_ context.Context, req *storev1.CommitRequest) (*storev1.CommitResponse, error) {
	tx := req.GetTransaction()
	if err := s.hook.call(tx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.quorum {
		return nil, errs.New(errs.Unavailable, "no quorum")
	}
	s.commits++
	out := s.outcomes[tx.GetRequestId()]
	if out == nil {
		out = s.apply(tx)
		s.outcomes[tx.GetRequestId()] = out
	}
	if s.lose > 0 {
		s.lose--
		return nil, errs.New(errs.Unavailable, "the answer was lost")
	}
	return &storev1.CommitResponse{Outcome: out}, nil
}

// apply needs the lock.
func (s *Store) apply(tx *storev1.Transaction) *storev1.Outcome {
	for _, p := range tx.GetPreconditions() {
		if out := s.check(p); out != nil {
			return s.refuse(out)
		}
	}
	t := s.snapshot.Begin()
	var puts []*typesv1.Object
	for _, p := range tx.GetPuts() {
		key := state.KeyOf(p.GetObject())
		old := t.Get(key)
		if p.GetCreate() != (old == nil) {
			reason := storev1.RefusalReason_REFUSAL_REASON_NOT_FOUND
			if old != nil {
				reason = storev1.RefusalReason_REFUSAL_REASON_EXISTS
			}
			return s.refuse(&storev1.Outcome{Refusal: reason, Message: fmt.Sprint(key), Subject: subject(key)})
		}
		o := merge(old, p)
		t.Put(o)
		puts = append(puts, o)
	}
	for _, d := range tx.GetDeletes() {
		t.Delete(state.Key{Kind: d.GetKind(), ID: d.GetId()})
	}
	if c := t.Clashes(); len(c) > 0 {
		return s.refuse(&storev1.Outcome{Refusal: storev1.RefusalReason_REFUSAL_REASON_CLAIMED, Claim: c[0].Claim,
			Message: fmt.Sprintf("%s is held by %s and %s", c[0].Claim, c[0].First, c[0].Second), Subject: subject(c[0].First)})
	}
	if d := t.Dangling(); len(d) > 0 {
		return s.refuse(&storev1.Outcome{Refusal: storev1.RefusalReason_REFUSAL_REASON_IN_USE,
			Message: fmt.Sprintf("%s needs %s", d[0].From, d[0].To), Subject: subject(d[0].From)})
	}
	return &storev1.Outcome{Version: s.advance(t, puts, tx.GetDeletes()).Proto()}
}

// refuse names the revision that refused it.
func (s *Store) refuse(out *storev1.Outcome) *storev1.Outcome {
	out.Version = s.snapshot.Version().Proto()
	return out
}

func subject(k state.Key) *storev1.Delete { return &storev1.Delete{Kind: k.Kind, Id: k.ID} }

// check returns the refusal of a precondition that does not hold.
func (s *Store) check(p *storev1.Precondition) *storev1.Outcome {
	switch c := p.GetCondition().(type) {
	case *storev1.Precondition_Unchanged:
		key := state.Key{Kind: c.Unchanged.GetKind(), ID: c.Unchanged.GetId()}
		if got := state.MetaOf(s.snapshot.Get(key)).GetRevision(); got != c.Unchanged.GetRevision() {
			return &storev1.Outcome{Refusal: storev1.RefusalReason_REFUSAL_REASON_CONFLICT, Subject: subject(key),
				Message: fmt.Sprintf("%s is at revision %d, not %d", key, got, c.Unchanged.GetRevision())}
		}
	case *storev1.Precondition_Fence:
		l := s.snapshot.Lease(c.Fence.GetLease())
		if l.GetNumber() != c.Fence.GetNumber() || l.GetHolder() != c.Fence.GetHolder() {
			return &storev1.Outcome{Refusal: storev1.RefusalReason_REFUSAL_REASON_FENCED,
				Message: fmt.Sprintf("lease %s is held by %s, number %d", c.Fence.GetLease(), l.GetHolder(), l.GetNumber())}
		}
	case *storev1.Precondition_Session:
		n := s.snapshot.Node(c.Session.GetNodeId()).GetStatus().GetSession()
		if n.GetNumber() != c.Session.GetNumber() || n.GetDispatcherId() != c.Session.GetDispatcherId() {
			return &storev1.Outcome{Refusal: storev1.RefusalReason_REFUSAL_REASON_FENCED, Message: "another session is in force",
				Subject: subject(state.Key{Kind: typesv1.Kind_KIND_NODE, ID: c.Session.GetNodeId()})}
		}
	case *storev1.Precondition_Epoch:
		if !proto.Equal(c.Epoch, s.snapshot.Version().Epoch()) {
			return &storev1.Outcome{Refusal: storev1.RefusalReason_REFUSAL_REASON_CONFLICT, Message: "another epoch"}
		}
	}
	return nil
}

// merge takes the listed fields from the put and the rest from what is there.
func merge(old *typesv1.Object, p *storev1.Put) *typesv1.Object {
	from := state.Unwrap(p.GetObject()).ProtoReflect()
	into := from.New()
	if old != nil {
		into = proto.Clone(state.Unwrap(old)).ProtoReflect()
	}
	fields := from.Descriptor().Fields()
	for _, name := range p.GetFields() {
		if f := fields.ByName(protoreflect.Name(name)); f != nil {
			into.Clear(f)
			if from.Has(f) {
				into.Set(f, proto.Clone(from.Interface()).ProtoReflect().Get(f))
			}
		}
	}
	out := state.Wrap(into.Interface())
	if state.MetaOf(out) == nil {
		f := fields.ByName("meta")
		into.Set(f, protoreflect.ValueOfMessage((&typesv1.Meta{Id: state.MetaOf(p.GetObject()).GetId()}).ProtoReflect()))
	}
	return out
}
