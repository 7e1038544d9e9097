// Package commit sends transactions to the store and tells a refusal from a failure.
//
// It owns the request id: a retry of one call, on this or another store, carries the same id and gets the first outcome.
// It must never decide what to write. A Committer is safe for concurrent use.
package commit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Client is the part of the store that a Committer uses.
type Client interface {
	Commit(ctx context.Context, in *storev1.CommitRequest, opts ...grpc.CallOption) (*storev1.CommitResponse, error)
}

// Committer commits for one process.
type Committer struct {
	client Client
	rand   *run.Rand
}

// New makes one.
func New(client Client, rand *run.Rand) *Committer { return &Committer{client: client, rand: rand} }

// Timeout bounds a commit whose context has no deadline.
const Timeout = 5 * time.Second

// Refused is the error of a transaction that the store refused. Nothing of it was applied.
type Refused struct{ Outcome *storev1.Outcome }

func (r *Refused) Error() string { return "refused: " + r.Outcome.GetMessage() }

// RefusalOf returns the outcome of a refused transaction, nil for other errors.
func RefusalOf(err error) *storev1.Outcome {
	if r, ok := errors.AsType[*Refused](err); ok {
		return r.Outcome
	}
	return nil
}

// Do commits and returns the version after it. A refusal is a *Refused; other errors leave open whether it was applied.
func (c *Committer) Do(ctx context.Context, tx *storev1.Transaction) (*typesv1.Version, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, Timeout)
		defer cancel()
	}
	if tx.GetRequestId() == "" {
		tx.RequestId = identity.NewID(c.rand)
	}
	resp, err := c.client.Commit(ctx, &storev1.CommitRequest{Transaction: tx})
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	out := resp.GetOutcome()
	if out.GetRefusal() != storev1.RefusalReason_REFUSAL_REASON_UNSPECIFIED {
		return out.GetVersion(), &Refused{Outcome: out}
	}
	if out.GetVersion() == nil {
		return nil, errs.New(errs.Internal, "commit: the store answered without a version")
	}
	return out.GetVersion(), nil
}

// Put changes fields of an object that is there.
func Put(o *typesv1.Object, fields ...string) *storev1.Put {
	return &storev1.Put{Object: o, Fields: fields}
}

// Create makes an object that is not there.
func Create(o *typesv1.Object, fields ...string) *storev1.Put {
	return &storev1.Put{Object: o, Fields: fields, Create: true}
}

// Unchanged asks that an object still has the revision read; 0 asks that there is none.
func Unchanged(kind typesv1.Kind, id string, revision uint64) *storev1.Precondition {
	return &storev1.Precondition{Condition: &storev1.Precondition_Unchanged{
		Unchanged: &storev1.Unchanged{Kind: kind, Id: id, Revision: revision},
	}}
}

// Session asks that a node's session is still this one.
func Session(nodeID, dispatcherID string, number uint64) *storev1.Precondition {
	return &storev1.Precondition{Condition: &storev1.Precondition_Session{
		Session: &storev1.SessionFence{NodeId: nodeID, DispatcherId: dispatcherID, Number: number},
	}}
}
