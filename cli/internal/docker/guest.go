package docker

import (
	"cmp"
	"strings"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Guest is a container of another tool on a network.
type Guest struct {
	Name      string
	Namespace string
	NodeID    string `json:",omitempty"`
	Node      string `json:",omitempty"`
	Addresses []string
	State     string
	Error     string `json:",omitempty"`
}

// GuestsOf translates those of a network.
func GuestsOf(list []*controlv1.NetworkGuest) []Guest {
	out := make([]Guest, 0, len(list))
	for _, g := range list {
		one := Guest{
			Name: g.GetName(), Namespace: Namespace(g.GetNamespace()), NodeID: g.GetNodeId(), Node: g.GetNodeHostname(),
			Addresses: append([]string{}, g.GetAddresses()...), State: guestState(g),
		}
		if g.GetState() != typesv1.TaskState_TASK_STATE_RUNNING {
			one.Error = g.GetMessage()
		}
		out = append(out, one)
	}
	return out
}

// Namespace is how a person names a network namespace.
func Namespace(a *typesv1.AttachedNamespace) string { return cmp.Or(a.GetPath(), a.GetContainer()) }

func guestState(g *controlv1.NetworkGuest) string {
	if g.GetState() == typesv1.TaskState_TASK_STATE_UNSPECIFIED {
		return "pending"
	}
	return word(g.GetState().String(), "TASK_STATE_")
}

// GuestRow is a line of `network attachments`.
type GuestRow struct{ Network, Name, Node, Namespace, Addresses, CurrentState, Error string }

// GuestRowOf makes a line.
func GuestRowOf(n *typesv1.Network, g *controlv1.NetworkGuest) GuestRow {
	one := GuestsOf([]*controlv1.NetworkGuest{g})[0]
	return GuestRow{
		Network: n.GetSpec().GetAnnotations().GetName(), Name: one.Name, Node: one.Node, Namespace: one.Namespace,
		Addresses: strings.Join(one.Addresses, ", "), CurrentState: Title(one.State), Error: one.Error,
	}
}
