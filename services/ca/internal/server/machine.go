package server

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca/internal/issue"
	"github.com/shoalproject/shoal/services/ca/internal/root"
)

// transaction decides the join from the snapshot: certificates are signed, and their records and the machine's objects are
// one transaction, whose conditions repeat what the decision rests on.
func (j *joining) transaction() (*storev1.Transaction, error) {
	// Step 1: may this machine have these certificates?
	if err := j.allowed(); err != nil {
		return nil, err
	}
	if err := j.notRemoved(); err != nil {
		return nil, err
	}
	if err := j.itself(); err != nil {
		return nil, err
	}
	// Step 2: the conditions. The cluster's covers the token; a removal or another join of the same machine that comes
	// in between is seen too.
	id := j.req.GetMachineId()
	tx := &storev1.Transaction{Preconditions: []*storev1.Precondition{
		clusterUnchanged(j.cluster()),
		commit.Unchanged(typesv1.Kind_KIND_NODE, id, j.snap.Node(id).GetMeta().GetRevision()),
	}}
	tx.Preconditions = append(tx.Preconditions, notDenied(issue.MembersOf(id)...)...)
	// Step 3: the machine, its processes, their certificates.
	if node := j.node(); node != nil {
		tx.Puts = append(tx.Puts, node)
	}
	for _, r := range j.req.GetRequests() {
		puts, err := j.certify(r)
		if err != nil {
			return nil, err
		}
		tx.Puts = append(tx.Puts, puts...)
		tx.Preconditions = append(tx.Preconditions, commit.Unchanged(typesv1.Kind_KIND_CREDENTIAL,
			j.id(r.GetRole()).Member(), j.credential(r.GetRole()).GetMeta().GetRevision()))
	}
	return tx, nil
}

func (j *joining) credential(role authzv1.Role) *typesv1.Credential {
	return j.snap.Credential(j.id(role).Member())
}

// notRemoved refuses a machine that was removed: its keys may be in other hands.
func (j *joining) notRemoved() error {
	for _, member := range issue.MembersOf(j.req.GetMachineId()) {
		if j.snap.Denial(member) != nil {
			return errs.New(errs.Denied, "join: machine %s was removed from the cluster (`shoal node rm`) and its id cannot come back; remove the file machine-id in shoal's folder on it to join as a new machine",
				j.req.GetMachineId())
		}
	}
	return nil
}

// itself checks that the machine id is free, or that the request comes from that very machine: each identity that was
// certified before must be proven by the key last certified for it, and a machine that is known must prove one when it asks
// for roles that it has not had: with a request for that one, too, or by signing with its key.
func (j *joining) itself() error {
	known, proven := j.snap.Node(j.req.GetMachineId()) != nil, false
	for _, member := range issue.MembersOf(j.req.GetMachineId()) {
		known = known || j.snap.Credential(member) != nil
	}
	for _, r := range j.req.GetRequests() {
		key, err := root.PublicKey(r.GetCsr())
		if err != nil {
			return err
		}
		last := j.credential(r.GetRole())
		if last == nil {
			proven = proven || j.vouched(r, key)
			continue
		}
		if !issue.Proven(last.GetPublicKeyHash(), r.GetCsr(), r.GetProof(), key) {
			return j.taken()
		}
		proven = true
	}
	if known && !proven {
		return j.taken()
	}
	j.fresh = !known
	return nil
}

// vouched says that a request is signed by the key of another process of the machine, which has not been removed.
func (j *joining) vouched(r *cav1.CertificateRequest, key *ecdsa.PublicKey) bool {
	for _, member := range issue.MembersOf(j.req.GetMachineId()) {
		c := j.snap.Credential(member)
		if c == nil || j.snap.Denial(member) != nil {
			continue
		}
		for _, signed := range append([][]byte{r.GetProof()}, r.GetVouchers()...) {
			if issue.Proven(c.GetPublicKeyHash(), r.GetCsr(), signed, key) {
				return true
			}
		}
	}
	return false
}

func (j *joining) taken() error {
	return errs.New(errs.Exists, "join: machine id %s belongs to a machine with other keys (%s); if that is this machine, set up anew, run `shoal node rm %s` on a manager and remove the file machine-id in shoal's folder here; if this machine's disk is a copy of another's, remove shoal's folder here",
		j.req.GetMachineId(), cmp.Or(j.snap.Node(j.req.GetMachineId()).GetIdentity().GetHostname(), "hostname unknown"), j.req.GetMachineId())
}

// node makes or updates the machine's object; nil for a machine that neither runs containers nor takes traffic. What
// people want of one that is there, its role too, stays as it is.
func (j *joining) node() *storev1.Put {
	old := j.snap.Node(j.req.GetMachineId())
	roles := j.roles(old)
	if !slices.Contains(roles, authzv1.Role_ROLE_AGENT) && !slices.Contains(roles, authzv1.Role_ROLE_MESHPROXY) {
		return nil
	}
	next := &typesv1.Node{
		Meta:     &typesv1.Meta{Id: j.req.GetMachineId()},
		Spec:     &typesv1.NodeSpec{Role: typesv1.NodeRole_NODE_ROLE_WORKER, Availability: typesv1.Availability_AVAILABILITY_ACTIVE},
		Identity: &typesv1.NodeIdentity{Hostname: j.req.GetHostname(), Roles: roles},
	}
	if a := j.req.GetAvailability(); a != typesv1.Availability_AVAILABILITY_UNSPECIFIED {
		next.Spec.Availability = a
	}
	if slices.Contains(roles, authzv1.Role_ROLE_STORE) {
		next.Spec.Role = typesv1.NodeRole_NODE_ROLE_MANAGER
	}
	if old == nil {
		return commit.Create(state.Wrap(next), "spec", "identity")
	}
	return commit.Put(state.Wrap(next), "identity")
}

// roles are those that the machine has and those asked for now, in order.
func (j *joining) roles(old *typesv1.Node) []authzv1.Role {
	roles := slices.Clone(old.GetIdentity().GetRoles())
	for _, r := range issue.ServiceRoles() {
		if j.snap.Member(j.id(r).Member()) != nil {
			roles = append(roles, r)
		}
	}
	for _, r := range j.req.GetRequests() {
		roles = append(roles, r.GetRole())
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

// certify signs one request and lists what has to be written for it.
func (j *joining) certify(r *cav1.CertificateRequest) ([]*storev1.Put, error) {
	id := j.id(r.GetRole())
	addresses := hostPorts(j.req.GetAddresses(), strconv.Itoa(issue.Port(id.Role)))
	issued, err := j.server.Issuer.Issue(root.Leaf{
		ID: id, CSR: r.GetCsr(), Life: issue.Life(j.cluster().GetSpec(), id.Role),
		Hosts: issue.HostsOf(id.Role, addresses, j.req.GetHostname()), NotBefore: removedAt(j.snap, id),
	}, nil)
	if err != nil {
		return nil, err
	}
	j.issued = append(j.issued, issued)
	puts := []*storev1.Put{putCredential(j.snap, issued.Credential)}
	if !issue.IsService(id.Role) {
		return puts, nil
	}
	return append(puts, append(j.member(id, addresses, r.GetWrapKey()), j.rewrap(id, r.GetWrapKey())...)...), nil
}

// member makes or updates a control process's object, so that others find it, and wrap keys to it, before it runs.
func (j *joining) member(id identity.ID, addresses []string, wrapKey []byte) []*storev1.Put {
	next := issue.NewMember(id, j.req.GetHostname(), addresses, j.req.GetVersion(), wrapKey)
	if j.snap.Member(id.Member()) == nil {
		return []*storev1.Put{commit.Create(state.Wrap(next), issue.MemberFields()...)}
	}
	return []*storev1.Put{commit.Put(state.Wrap(next), "hostname", "addresses", "version", "wrap_key")}
}

// rewrap drops the keyset key as it was wrapped for an earlier wrap key of a CA that was set up anew, or was removed and
// comes back: another CA wraps it again.
func (j *joining) rewrap(id identity.ID, wrapKey []byte) []*storev1.Put {
	old := j.snap.Member(id.Member())
	if id.Role != authzv1.Role_ROLE_CA || (old != nil && bytes.Equal(old.GetWrapKey(), wrapKey)) {
		return nil
	}
	a := proto.CloneOf(j.cluster().GetAuthority())
	a.Keyset = slices.DeleteFunc(a.GetKeyset(), func(w *typesv1.WrappedKey) bool { return w.GetMemberId() == id.Member() })
	if len(a.GetKeyset()) == 0 || len(a.GetKeyset()) == len(j.cluster().GetAuthority().GetKeyset()) {
		return nil // the last copy is never dropped; this CA must have another, or it could not answer
	}
	next := &typesv1.Cluster{Meta: &typesv1.Meta{Id: j.cluster().GetMeta().GetId()}, Authority: a}
	return []*storev1.Put{commit.Put(state.Wrap(next), "authority")}
}
