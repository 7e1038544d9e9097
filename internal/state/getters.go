package state

import (
	"iter"
	"slices"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func (v *view) get(kind typesv1.Kind, id string) *typesv1.Object {
	return v.Get(Key{Kind: kind, ID: id})
}

// Cluster is the one cluster object; nil before the first transaction.
func (v *view) Cluster() *typesv1.Cluster {
	_, o, _ := v.objects[typesv1.Kind_KIND_CLUSTER].Min() // asked for with each task: it must cost nothing
	return o.GetCluster()
}

// Node is nil when absent, as are the others below.
func (v *view) Node(id string) *typesv1.Node { return v.get(typesv1.Kind_KIND_NODE, id).GetNode() }

// Service by id.
func (v *view) Service(id string) *typesv1.Service {
	return v.get(typesv1.Kind_KIND_SERVICE, id).GetService()
}

// Task by id.
func (v *view) Task(id string) *typesv1.Task { return v.get(typesv1.Kind_KIND_TASK, id).GetTask() }

// Network by id.
func (v *view) Network(id string) *typesv1.Network {
	return v.get(typesv1.Kind_KIND_NETWORK, id).GetNetwork()
}

// Secret by id.
func (v *view) Secret(id string) *typesv1.Secret {
	return v.get(typesv1.Kind_KIND_SECRET, id).GetSecret()
}

// Config by id.
func (v *view) Config(id string) *typesv1.Config {
	return v.get(typesv1.Kind_KIND_CONFIG, id).GetConfig()
}

// Registry by id.
func (v *view) Registry(id string) *typesv1.Registry {
	return v.get(typesv1.Kind_KIND_REGISTRY, id).GetRegistry()
}

// Payload by id.
func (v *view) Payload(id string) *typesv1.Payload {
	return v.get(typesv1.Kind_KIND_PAYLOAD, id).GetPayload()
}

// Volume by id.
func (v *view) Volume(id string) *typesv1.Volume {
	return v.get(typesv1.Kind_KIND_VOLUME, id).GetVolume()
}

// Member by id, which is "role/machine".
func (v *view) Member(id string) *typesv1.Member {
	return v.get(typesv1.Kind_KIND_MEMBER, id).GetMember()
}

// Load by the dispatcher's machine.
func (v *view) Load(id string) *typesv1.Load { return v.get(typesv1.Kind_KIND_LOAD, id).GetLoad() }

// Lease by the duty's name.
func (v *view) Lease(id string) *typesv1.Lease { return v.get(typesv1.Kind_KIND_LEASE, id).GetLease() }

// Denial by "role/name" or a serial number.
func (v *view) Denial(id string) *typesv1.Denial {
	return v.get(typesv1.Kind_KIND_DENIAL, id).GetDenial()
}

// RemovedMark is between a member and a moment in a denial of what was certified before; see identity.DeniedBefore.
const RemovedMark = "@"

// Removals walks the denials of what was certified for a member ("role/name") before some moment: one for each time that
// it was removed and could join again.
func (v *view) Removals(member string) iter.Seq[*typesv1.Denial] {
	return under(v.objects[typesv1.Kind_KIND_DENIAL], member+RemovedMark, (*typesv1.Object).GetDenial)
}

// Credential by "role/name".
func (v *view) Credential(id string) *typesv1.Credential {
	return v.get(typesv1.Kind_KIND_CREDENTIAL, id).GetCredential()
}

// all walks one kind in the order of ids.
func all[T any](v *view, kind typesv1.Kind, get func(*typesv1.Object) T) iter.Seq[T] {
	return under(v.objects[kind], "", get)
}

// Nodes walks all nodes in the order of ids, as do the others below.
func (v *view) Nodes() iter.Seq[*typesv1.Node] {
	return all(v, typesv1.Kind_KIND_NODE, (*typesv1.Object).GetNode)
}

// Services walks all services.
func (v *view) Services() iter.Seq[*typesv1.Service] {
	return all(v, typesv1.Kind_KIND_SERVICE, (*typesv1.Object).GetService)
}

// Tasks walks all tasks.
func (v *view) Tasks() iter.Seq[*typesv1.Task] {
	return all(v, typesv1.Kind_KIND_TASK, (*typesv1.Object).GetTask)
}

// Networks walks all networks.
func (v *view) Networks() iter.Seq[*typesv1.Network] {
	return all(v, typesv1.Kind_KIND_NETWORK, (*typesv1.Object).GetNetwork)
}

// Secrets walks all secrets.
func (v *view) Secrets() iter.Seq[*typesv1.Secret] {
	return all(v, typesv1.Kind_KIND_SECRET, (*typesv1.Object).GetSecret)
}

// Configs walks all configs.
func (v *view) Configs() iter.Seq[*typesv1.Config] {
	return all(v, typesv1.Kind_KIND_CONFIG, (*typesv1.Object).GetConfig)
}

// Payloads are the data of secrets and configs, by id.
func (v *view) Payloads() iter.Seq[*typesv1.Payload] {
	return all(v, typesv1.Kind_KIND_PAYLOAD, (*typesv1.Object).GetPayload)
}

// Registries walks all registries.
func (v *view) Registries() iter.Seq[*typesv1.Registry] {
	return all(v, typesv1.Kind_KIND_REGISTRY, (*typesv1.Object).GetRegistry)
}

// Volumes walks all volumes.
func (v *view) Volumes() iter.Seq[*typesv1.Volume] {
	return all(v, typesv1.Kind_KIND_VOLUME, (*typesv1.Object).GetVolume)
}

// Members walks all members.
func (v *view) Members() iter.Seq[*typesv1.Member] {
	return all(v, typesv1.Kind_KIND_MEMBER, (*typesv1.Object).GetMember)
}

// Loads walks what all dispatchers' machines use.
func (v *view) Loads() iter.Seq[*typesv1.Load] {
	return all(v, typesv1.Kind_KIND_LOAD, (*typesv1.Object).GetLoad)
}

// Leases walks all leases.
func (v *view) Leases() iter.Seq[*typesv1.Lease] {
	return all(v, typesv1.Kind_KIND_LEASE, (*typesv1.Object).GetLease)
}

// Denials walks the deny list.
func (v *view) Denials() iter.Seq[*typesv1.Denial] {
	return all(v, typesv1.Kind_KIND_DENIAL, (*typesv1.Object).GetDenial)
}

// Credentials walks all current certificates.
func (v *view) Credentials() iter.Seq[*typesv1.Credential] {
	return all(v, typesv1.Kind_KIND_CREDENTIAL, (*typesv1.Object).GetCredential)
}

// TasksOfService walks a service's tasks in the order of slot and id, also when the service is gone.
func (v *view) TasksOfService(id string) iter.Seq[*typesv1.Task] {
	return under(v.indexes[bySlot], id+sep, (*typesv1.Object).GetTask)
}

// TasksOfSlot walks the tasks of one slot, in the order of ids.
func (v *view) TasksOfSlot(service string, slot uint64) iter.Seq[*typesv1.Task] {
	return under(v.indexes[bySlot], slotPrefix(service, slot), (*typesv1.Object).GetTask)
}

// TasksOfNode walks the tasks that are bound to a node, in the order of ids.
func (v *view) TasksOfNode(id string) iter.Seq[*typesv1.Task] {
	return under(v.indexes[byNode], id+sep, (*typesv1.Object).GetTask)
}

// ServiceByName is nil when no service has the name.
func (v *view) ServiceByName(name string) *typesv1.Service {
	key, _ := v.ClaimHolder(NameClaim(typesv1.Kind_KIND_SERVICE, name))
	return v.Service(key.ID)
}

// NetworkByName is nil when no network has the name.
func (v *view) NetworkByName(name string) *typesv1.Network {
	key, _ := v.ClaimHolder(NameClaim(typesv1.Kind_KIND_NETWORK, name))
	return v.Network(key.ID)
}

// NodesByHostname lists the nodes with that hostname, in the order of ids: hostnames need not be unique.
func (v *view) NodesByHostname(name string) []*typesv1.Node {
	return slices.Collect(under(v.indexes[byHostname], name+sep, (*typesv1.Object).GetNode))
}

// MembersOfRole walks the members of one role, in the order of ids.
func (v *view) MembersOfRole(role authzv1.Role) iter.Seq[*typesv1.Member] {
	return under(v.indexes[byRole], rolePrefix(role), (*typesv1.Object).GetMember)
}

// DeniedList lists the ids of the deny list: "role/name" and serial numbers, in order.
func (v *view) DeniedList() []string {
	var out []string
	for d := range v.Denials() {
		out = append(out, d.GetMeta().GetId())
	}
	return out
}
