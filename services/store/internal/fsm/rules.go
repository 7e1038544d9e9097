package fsm

import (
	"cmp"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// own holds the caller to its own Member, and a dispatcher to its own Load: what a process says of itself, nobody else says. A CA makes the Member of a
// process that joins and writes what it joins with; a dispatcher speaks for the machines' processes that it serves; people say what
// they want of one that is there.
func (a *attempt) own(key state.Key, p *storev1.Put) *storev1.Outcome {
	if key.Kind == typesv1.Kind_KIND_LOAD && key.ID != a.tx.GetCaller().GetName() {
		return denied(key, "%s may not write the load %s", CallerID(a.tx.GetCaller()), key.ID)
	}
	if key.Kind != typesv1.Kind_KIND_MEMBER || key.ID == CallerID(a.tx.GetCaller()) {
		return nil
	}
	switch a.tx.GetCaller().GetRole() {
	case authzv1.Role_ROLE_CA:
		if p.GetCreate() || !slices.ContainsFunc(p.GetFields(), func(f string) bool { return !certified(f) }) {
			return nil
		}
	case authzv1.Role_ROLE_DISPATCHER:
		if nodeSide(key.ID) {
			return nil
		}
	case authzv1.Role_ROLE_OPERATOR:
		if !p.GetCreate() { // what people want of it: the fields' writers leave no more
			return nil
		}
	default:
	}
	return denied(key, "%s may not write the member %s", CallerID(a.tx.GetCaller()), key.ID)
}

// certified says that the field of a member is what it joined with.
func certified(field string) bool {
	return field == "wrap_key" || field == "hostname" || field == "addresses" || field == "version"
}

// nodeSide reports whether the member has no way to the store of its own.
func nodeSide(memberID string) bool {
	role, _, _ := strings.Cut(memberID, "/")
	return role == roleName(authzv1.Role_ROLE_AGENT) || role == roleName(authzv1.Role_ROLE_MESHPROXY)
}

// mayCreate says who makes what: to write a field of an object is not yet to make one.
func mayCreate(kind typesv1.Kind, role authzv1.Role) bool {
	switch kind {
	case typesv1.Kind_KIND_TASK, typesv1.Kind_KIND_VOLUME:
		return role == authzv1.Role_ROLE_SCHEDULER
	case typesv1.Kind_KIND_NODE, typesv1.Kind_KIND_CREDENTIAL:
		return role == authzv1.Role_ROLE_CA
	case typesv1.Kind_KIND_SERVICE, typesv1.Kind_KIND_NETWORK, typesv1.Kind_KIND_SECRET, typesv1.Kind_KIND_CONFIG, typesv1.Kind_KIND_PAYLOAD,
		typesv1.Kind_KIND_REGISTRY:
		return role == authzv1.Role_ROLE_OPERATOR
	case typesv1.Kind_KIND_DENIAL, typesv1.Kind_KIND_MEMBER, typesv1.Kind_KIND_LEASE, typesv1.Kind_KIND_LOAD:
		return true // who may write their fields
	case typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_UNSPECIFIED:
	}
	return false
}

// mayDelete says who removes what. A field has its writers in the proto; a whole object has them here.
func (a *attempt) mayDelete(key state.Key, old *typesv1.Object) bool {
	c := a.tx.GetCaller()
	switch key.Kind {
	case typesv1.Kind_KIND_TASK:
		return c.GetRole() == authzv1.Role_ROLE_SCHEDULER
	case typesv1.Kind_KIND_NODE, typesv1.Kind_KIND_SERVICE, typesv1.Kind_KIND_NETWORK, typesv1.Kind_KIND_SECRET,
		typesv1.Kind_KIND_CONFIG, typesv1.Kind_KIND_VOLUME, typesv1.Kind_KIND_PAYLOAD, typesv1.Kind_KIND_REGISTRY:
		return c.GetRole() == authzv1.Role_ROLE_OPERATOR
	case typesv1.Kind_KIND_DENIAL, typesv1.Kind_KIND_CREDENTIAL:
		return c.GetRole() == authzv1.Role_ROLE_OPERATOR || c.GetRole() == authzv1.Role_ROLE_CA
	case typesv1.Kind_KIND_MEMBER:
		return c.GetRole() == authzv1.Role_ROLE_OPERATOR || key.ID == CallerID(c) ||
			(c.GetRole() == authzv1.Role_ROLE_DISPATCHER && nodeSide(key.ID))
	case typesv1.Kind_KIND_LOAD: // also of one that has gone
		return c.GetRole() == authzv1.Role_ROLE_DISPATCHER
	case typesv1.Kind_KIND_LEASE:
		return old.GetLease().GetHolder() == CallerID(c)
	case typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_UNSPECIFIED:
	}
	return false
}

// rules are those of single kinds. Old is nil for a new object.
func (a *attempt) rules(key state.Key, old, next *typesv1.Object, p *storev1.Put) *storev1.Outcome {
	if a.begins {
		return nil
	}
	switch key.Kind {
	case typesv1.Kind_KIND_TASK:
		return taskRule(key, old.GetTask(), next.GetTask())
	case typesv1.Kind_KIND_LEASE:
		return leaseRule(key, old.GetLease(), next.GetLease(), CallerID(a.tx.GetCaller()))
	case typesv1.Kind_KIND_MEMBER:
		if r := a.removed(key, old); r != nil {
			return r
		}
		return memberRule(key, next.GetMember(), p)
	case typesv1.Kind_KIND_NODE:
		return nodeRule(key, old.GetNode(), next.GetNode())
	default:
		return nil
	}
}

// keepObserved keeps what was observed when the new report is not later. Reports come by way of more than one dispatcher
// and may overtake each other; the order (attempt, state, seq) is the agent's own.
func keepObserved(old, next *typesv1.Task) {
	if old.GetObserved() != nil && compareObserved(next.GetObserved(), old.GetObserved()) <= 0 {
		next.Observed = old.GetObserved()
	}
}

func compareObserved(a, b *typesv1.TaskObserved) int {
	return cmp.Or(
		cmp.Compare(a.GetAttempt(), b.GetAttempt()),
		cmp.Compare(a.GetState(), b.GetState()),
		cmp.Compare(a.GetSeq(), b.GetSeq()),
	)
}

// taskRule: a task is one attempt. What was decided of it goes one way.
func taskRule(key state.Key, old, next *typesv1.Task) *storev1.Outcome {
	was, is := old.GetDecided(), next.GetDecided()
	if old == nil || was == is {
		return nil
	}
	switch {
	case is.GetDesired() < was.GetDesired():
		return conflict(key, "update out of sequence: the desired state of %s only rises, from %s not to %s", key, was.GetDesired(), is.GetDesired())
	case was.GetNodeId() != "" && is.GetNodeId() != was.GetNodeId():
		return conflict(key, "update out of sequence: %s is bound to node %s", key, was.GetNodeId())
	case is.GetSlot() != was.GetSlot():
		return conflict(key, "update out of sequence: %s is of slot %d", key, was.GetSlot())
	}
	return nil
}

// leaseRule: a lease is taken for oneself, with a higher number, and given back by its holder alone.
func leaseRule(key state.Key, old, next *typesv1.Lease, caller string) *storev1.Outcome {
	switch {
	case next.GetHolder() == "" && old.GetHolder() != caller:
		return denied(key, "%s does not hold lease %q", caller, key.ID)
	case next.GetHolder() == "":
		if next.GetNumber() != old.GetNumber() {
			return invalid(key, "a lease that is given back keeps its number")
		}
	case next.GetHolder() != caller:
		return denied(key, "%s may take lease %q for itself alone", caller, key.ID)
	case old.GetHolder() != caller && next.GetNumber() <= old.GetNumber():
		return refuse(storev1.RefusalReason_REFUSAL_REASON_FENCED, key, "lease %q has number %d by now", key.ID, old.GetNumber())
	case next.GetNumber() < old.GetNumber():
		return invalid(key, "the number of lease %q only rises", key.ID)
	}
	return nil
}

// removed keeps a process that was removed from announcing itself back: what it said was on its way when it went. It comes
// back by a new certificate.
func (a *attempt) removed(key state.Key, old *typesv1.Object) *storev1.Outcome {
	if old != nil || a.txn.Credential(key.ID) != nil {
		return nil
	}
	for range a.txn.Removals(key.ID) {
		return denied(key, "member %s was removed; join again", key.ID)
	}
	return nil
}

// memberRule: the id says role and machine; the fields must not say something else.
func memberRule(key state.Key, next *typesv1.Member, p *storev1.Put) *storev1.Outcome {
	role, machine, ok := strings.Cut(key.ID, "/")
	if !ok {
		return invalid(key, "the id of a member is role/machine")
	}
	if (has(p.GetFields(), "role") && roleName(next.GetRole()) != role) ||
		(has(p.GetFields(), "machine_id") && next.GetMachineId() != machine) {
		return invalid(key, "member %s says that it is %s/%s", key.ID, roleName(next.GetRole()), next.GetMachineId())
	}
	return nil
}

// nodeRule: the number of a session fences what is said in it, so it must not fall back to one that was used.
func nodeRule(key state.Key, old, next *typesv1.Node) *storev1.Outcome {
	if was, is := old.GetStatus().GetSession().GetNumber(), next.GetStatus().GetSession().GetNumber(); is < was {
		return conflict(key, "update out of sequence: the session number of node %s is %d and only rises", key.ID, was)
	}
	return nil
}
