// Package relay brings a call to the leader, wherever it comes in.
//
// It owns the rule that a follower passes on the whole call, with the verified caller, never a half-made transaction; and
// what may be tried again after a failure. It must never look into a call.
package relay

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
)

// Timeout bounds a call without a deadline.
const Timeout = 5 * time.Second

// patience is how long a store that was taken for the leader waits to become it.
const patience = time.Second

// again is the longest wait before another look at who leads.
const again = 200 * time.Millisecond

// notSentField is the fault of a call that was not begun: any caller may try it again.
const notSentField = "leader"

// Relay knows the way to the leader.
type Relay struct {
	Self identity.ID
	Node interface {
		Watch() (*raftnode.View, <-chan struct{})
	}
	// Conn is a connection to a member of the group; nil when there is none.
	Conn func(id uint64) *grpc.ClientConn
}

// Call is one call in both its forms.
type Call[Resp any] struct {
	// Local serves it on the leader.
	Local func(ctx context.Context, caller rpc.Caller) (Resp, error)
	// Remote passes it on.
	Remote func(ctx context.Context, conn *grpc.ClientConn) (Resp, error)
	// Repeatable says that it may reach two leaders: it carries a request id.
	Repeatable bool
}

// Do serves the call here if this store leads, or passes it to the leader, until the deadline.
func Do[Resp any](ctx context.Context, r *Relay, c Call[Resp]) (Resp, error) {
	ctx, cancel := Within(ctx)
	defer cancel()
	caller, ok := rpc.CallerOf(ctx)
	var none Resp
	if !ok {
		return none, errs.New(errs.Internal, "a call has no caller")
	}
	passedOn := len(caller.Via) > 0 && caller.Via[len(caller.Via)-1].Role == authzv1.Role_ROLE_STORE
	enough := time.NewTimer(patience)
	defer enough.Stop()
	waited := false
	for {
		v, changed := r.Node.Watch()
		resp, sent, err := attempt(ctx, r, c, v, caller, passedOn)
		if err == nil || !mayRepeat(ctx, c.Repeatable, sent, err) {
			return resp, err
		}
		if passedOn && waited {
			return none, notSent(err)
		}
		wait := time.NewTimer(again)
		select {
		case <-changed:
		case <-wait.C:
		case <-enough.C:
			waited = true
		case <-ctx.Done():
			wait.Stop()
			return none, err
		}
		wait.Stop()
	}
}

// Within makes a context that ends a little before the caller's own deadline: an answer in words is worth more to it than
// silence. A call without a deadline gets Timeout.
func Within(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, Timeout)
	}
	left := time.Until(deadline)
	return context.WithTimeout(ctx, left-min(left/10, margin))
}

// margin is the most that Within takes off.
const margin = 500 * time.Millisecond

// attempt tries once. Sent says that the call may have been begun somewhere.
func attempt[Resp any](ctx context.Context, r *Relay, c Call[Resp], v *raftnode.View, caller rpc.Caller, passedOn bool) (resp Resp, sent bool, err error) {
	if v.Serves {
		resp, err = c.Local(ctx, caller)
		_, refused := errors.AsType[raftnode.NotLeader](err)
		return resp, !refused, err
	}
	// A call that another store took for the leader's is not sent in circles.
	if passedOn || v.Leader == 0 || v.Leader == v.ID {
		return resp, false, raftnode.NoQuorum()
	}
	conn := r.Conn(v.Leader)
	if conn == nil {
		return resp, false, raftnode.NoQuorum()
	}
	resp, err = c.Remote(rpc.Forward(ctx, caller, r.Self), conn)
	return resp, !isNotSent(err), err
}

func mayRepeat(ctx context.Context, repeatable, sent bool, err error) bool {
	return ctx.Err() == nil && errs.KindOf(err) == errs.Unavailable && (repeatable || !sent)
}

func notSent(err error) error {
	return errs.WithFaults(errs.Unavailable, "this store does not lead", errs.Fault{Field: notSentField, Reason: err.Error()})
}

func isNotSent(err error) bool {
	for _, f := range errs.FaultsOf(err) {
		if f.Field == notSentField && errs.KindOf(err) == errs.Unavailable {
			return true
		}
	}
	return false
}

// CallerProto is the caller as a transaction carries it.
func CallerProto(c rpc.Caller) *storev1.Caller {
	out := &storev1.Caller{Role: c.Principal.Role, Name: c.Principal.Name}
	for _, v := range c.Via {
		out.Via = append(out.Via, v.Member())
	}
	return out
}
