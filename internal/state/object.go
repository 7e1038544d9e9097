package state

import (
	"google.golang.org/protobuf/proto"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Key names an object.
type Key struct {
	Kind typesv1.Kind
	ID   string
}

// String is "task/0123…", for messages and logs.
func (k Key) String() string { return KindName(k.Kind) + "/" + k.ID }

func (k Key) valid() bool {
	return k.Kind > typesv1.Kind_KIND_UNSPECIFIED && int(k.Kind) < kinds && k.ID != ""
}

// kinds is one more than the highest kind.
const kinds = int(typesv1.Kind_KIND_REGISTRY) + 1

const unknown = "unknown"

// KindName is the kind in lower case, as a person writes it.
func KindName(k typesv1.Kind) string {
	switch k {
	case typesv1.Kind_KIND_CLUSTER:
		return "cluster"
	case typesv1.Kind_KIND_NODE:
		return "node"
	case typesv1.Kind_KIND_SERVICE:
		return "service"
	case typesv1.Kind_KIND_TASK:
		return "task"
	case typesv1.Kind_KIND_NETWORK:
		return "network"
	case typesv1.Kind_KIND_SECRET:
		return "secret"
	case typesv1.Kind_KIND_CONFIG:
		return "config"
	case typesv1.Kind_KIND_VOLUME:
		return "volume"
	case typesv1.Kind_KIND_MEMBER:
		return "member"
	case typesv1.Kind_KIND_LEASE:
		return "lease"
	case typesv1.Kind_KIND_DENIAL:
		return "denial"
	case typesv1.Kind_KIND_CREDENTIAL:
		return "credential"
	case typesv1.Kind_KIND_LOAD:
		return "load"
	case typesv1.Kind_KIND_PAYLOAD:
		return "payload"
	case typesv1.Kind_KIND_REGISTRY:
		return "registry"
	case typesv1.Kind_KIND_UNSPECIFIED:
	}
	return unknown
}

// Kinds lists all kinds, in the order of their numbers.
func Kinds() []typesv1.Kind {
	all := make([]typesv1.Kind, 0, kinds-1)
	for k := typesv1.Kind_KIND_CLUSTER; int(k) < kinds; k++ {
		if KindName(k) != unknown {
			all = append(all, k)
		}
	}
	return all
}

// KindOf is the kind of an object; unspecified when it has none.
func KindOf(o *typesv1.Object) typesv1.Kind {
	switch o.GetKind().(type) {
	case *typesv1.Object_Cluster:
		return typesv1.Kind_KIND_CLUSTER
	case *typesv1.Object_Node:
		return typesv1.Kind_KIND_NODE
	case *typesv1.Object_Service:
		return typesv1.Kind_KIND_SERVICE
	case *typesv1.Object_Task:
		return typesv1.Kind_KIND_TASK
	case *typesv1.Object_Network:
		return typesv1.Kind_KIND_NETWORK
	case *typesv1.Object_Secret:
		return typesv1.Kind_KIND_SECRET
	case *typesv1.Object_Config:
		return typesv1.Kind_KIND_CONFIG
	case *typesv1.Object_Volume:
		return typesv1.Kind_KIND_VOLUME
	case *typesv1.Object_Member:
		return typesv1.Kind_KIND_MEMBER
	case *typesv1.Object_Lease:
		return typesv1.Kind_KIND_LEASE
	case *typesv1.Object_Denial:
		return typesv1.Kind_KIND_DENIAL
	case *typesv1.Object_Credential:
		return typesv1.Kind_KIND_CREDENTIAL
	case *typesv1.Object_Load:
		return typesv1.Kind_KIND_LOAD
	case *typesv1.Object_Payload:
		return typesv1.Kind_KIND_PAYLOAD
	case *typesv1.Object_Registry:
		return typesv1.Kind_KIND_REGISTRY
	}
	return typesv1.Kind_KIND_UNSPECIFIED
}

// KeyOf is the key of an object.
func KeyOf(o *typesv1.Object) Key { return Key{Kind: KindOf(o), ID: MetaOf(o).GetId()} }

// MetaOf is the object's Meta, as it is in the object; nil when it has none.
func MetaOf(o *typesv1.Object) *typesv1.Meta {
	if m, ok := Unwrap(o).(interface{ GetMeta() *typesv1.Meta }); ok {
		return m.GetMeta()
	}
	return nil
}

// Unwrap is the message in the object: *typesv1.Task and so on; nil when there is none.
func Unwrap(o *typesv1.Object) proto.Message {
	switch k := o.GetKind().(type) {
	case *typesv1.Object_Cluster:
		return k.Cluster
	case *typesv1.Object_Node:
		return k.Node
	case *typesv1.Object_Service:
		return k.Service
	case *typesv1.Object_Task:
		return k.Task
	case *typesv1.Object_Network:
		return k.Network
	case *typesv1.Object_Secret:
		return k.Secret
	case *typesv1.Object_Config:
		return k.Config
	case *typesv1.Object_Volume:
		return k.Volume
	case *typesv1.Object_Member:
		return k.Member
	case *typesv1.Object_Lease:
		return k.Lease
	case *typesv1.Object_Denial:
		return k.Denial
	case *typesv1.Object_Credential:
		return k.Credential
	case *typesv1.Object_Load:
		return k.Load
	case *typesv1.Object_Payload:
		return k.Payload
	case *typesv1.Object_Registry:
		return k.Registry
	}
	return nil
}

// Wrap makes an object of *typesv1.Task and so on, without a copy. A message of no kind gives an empty object.
func Wrap(msg proto.Message) *typesv1.Object {
	switch m := msg.(type) {
	case *typesv1.Cluster:
		return &typesv1.Object{Kind: &typesv1.Object_Cluster{Cluster: m}}
	case *typesv1.Node:
		return &typesv1.Object{Kind: &typesv1.Object_Node{Node: m}}
	case *typesv1.Service:
		return &typesv1.Object{Kind: &typesv1.Object_Service{Service: m}}
	case *typesv1.Task:
		return &typesv1.Object{Kind: &typesv1.Object_Task{Task: m}}
	case *typesv1.Network:
		return &typesv1.Object{Kind: &typesv1.Object_Network{Network: m}}
	case *typesv1.Secret:
		return &typesv1.Object{Kind: &typesv1.Object_Secret{Secret: m}}
	case *typesv1.Config:
		return &typesv1.Object{Kind: &typesv1.Object_Config{Config: m}}
	case *typesv1.Volume:
		return &typesv1.Object{Kind: &typesv1.Object_Volume{Volume: m}}
	case *typesv1.Member:
		return &typesv1.Object{Kind: &typesv1.Object_Member{Member: m}}
	case *typesv1.Lease:
		return &typesv1.Object{Kind: &typesv1.Object_Lease{Lease: m}}
	case *typesv1.Denial:
		return &typesv1.Object{Kind: &typesv1.Object_Denial{Denial: m}}
	case *typesv1.Credential:
		return &typesv1.Object{Kind: &typesv1.Object_Credential{Credential: m}}
	case *typesv1.Load:
		return &typesv1.Object{Kind: &typesv1.Object_Load{Load: m}}
	case *typesv1.Payload:
		return &typesv1.Object{Kind: &typesv1.Object_Payload{Payload: m}}
	case *typesv1.Registry:
		return &typesv1.Object{Kind: &typesv1.Object_Registry{Registry: m}}
	}
	return &typesv1.Object{}
}
