package fsm

import (
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// duty is the lease of the scheduler that decides.
const duty = "scheduler"

// guarded refuses a write whose caller could have been replaced without knowing, unless the transaction says by a
// precondition that it was not: a scheduler by its lease, a dispatcher by the session of the machine that it speaks for.
// Preconditions hold by now; here they need only be there.
func (a *attempt) guarded(key state.Key, old *typesv1.Object) *storev1.Outcome {
	if a.begins {
		return nil
	}
	c := a.tx.GetCaller()
	switch {
	case c.GetRole() == authzv1.Role_ROLE_SCHEDULER && decides(key.Kind):
		if !a.says(func(p *storev1.Precondition) bool { return p.GetFence().GetLease() == duty }) {
			return invalid(key, "%s writes %s without the fence of lease %q", CallerID(c), key, duty)
		}
	case c.GetRole() == authzv1.Role_ROLE_DISPATCHER && key.Kind == typesv1.Kind_KIND_TASK:
		node := old.GetTask().GetDecided().GetNodeId()
		if !a.says(func(p *storev1.Precondition) bool {
			return node != "" && p.GetSession().GetNodeId() == node && p.GetSession().GetDispatcherId() == c.GetName()
		}) {
			return invalid(key, "%s writes %s without its own session of node %q", CallerID(c), key, node)
		}
	case c.GetRole() == authzv1.Role_ROLE_DISPATCHER && key.Kind == typesv1.Kind_KIND_NODE:
		// Who judges a machine whose dispatcher is gone has no session of it: that the node is unchanged does as well.
		if !a.says(func(p *storev1.Precondition) bool {
			u := p.GetUnchanged()
			return p.GetSession().GetNodeId() == key.ID || (u.GetKind() == key.Kind && u.GetId() == key.ID)
		}) {
			return invalid(key, "%s writes %s without its session, nor on condition that it is unchanged", CallerID(c), key)
		}
	}
	return nil
}

// decides reports whether the kind is one that decisions are written to.
func decides(k typesv1.Kind) bool {
	return k == typesv1.Kind_KIND_TASK || k == typesv1.Kind_KIND_SERVICE || k == typesv1.Kind_KIND_NODE ||
		k == typesv1.Kind_KIND_VOLUME
}

func (a *attempt) says(what func(*storev1.Precondition) bool) bool {
	for _, p := range a.tx.GetPreconditions() {
		if what(p) {
			return true
		}
	}
	return false
}
