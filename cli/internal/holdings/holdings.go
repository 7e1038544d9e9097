// Package holdings audits the addresses that the cluster has given: held twice, held for what is no more, or from nowhere.
//
// It owns what a leak is, and which service's tasks are to be made anew so that it ends. It is pure: it asks nobody and frees nothing. An
// address is freed by the scheduler alone, when the container that had it has ended.
package holdings

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/state"
)

// Check is the name of all findings.
const Check = "addresses"

// overdue is how much longer than its service allows a task may take to end before it is told.
const overdue = 5 * time.Minute

// Cluster is all that holds an address.
type Cluster struct {
	Services []*typesv1.Service
	Tasks    []*typesv1.Task
	Nodes    []*typesv1.Node
	Networks []*typesv1.Network
}

// Leak is an address that is held and should not be.
type Leak struct {
	finding.Finding
	// Service has the tasks that are to be made anew, with other addresses; empty: that does not end it.
	Service string
}

// repair is what ends a leak that new tasks end.
const repair = "shoal doctor addresses --repair makes the tasks of %q anew, one after another"

// holder is who has an address.
type holder struct {
	name    string
	service string // whose tasks it goes with; empty: it is no task
	since   time.Time
}

// audit is one look.
type audit struct {
	services map[string]*typesv1.Service
	nodes    map[string]*typesv1.Node
	networks map[string]*typesv1.Network
	holders  map[string][]holder // by claim
	leaks    []Leak
}

// Audit looks at all addresses. Without a leak it says how many there are.
func Audit(c Cluster, now time.Time) []Leak {
	a := audit{services: map[string]*typesv1.Service{}, nodes: map[string]*typesv1.Node{}, networks: map[string]*typesv1.Network{}, holders: map[string][]holder{}}
	for _, n := range c.Nodes {
		a.nodes[n.GetMeta().GetId()] = n
	}
	for _, n := range c.Networks {
		a.networks[n.GetMeta().GetId()] = n
	}
	for _, s := range c.Services {
		a.services[s.GetMeta().GetId()] = s
		a.virtual(s)
	}
	for _, t := range c.Tasks {
		if !state.Terminal(t.GetObserved().GetState()) {
			a.task(t, now)
		}
	}
	a.twice()
	if len(a.leaks) == 0 {
		return []Leak{{Finding: finding.Well(Check, "%d addresses are held, each by one task or service that has a right to it", len(a.holders))}}
	}
	slices.SortStableFunc(a.leaks, func(x, y Leak) int { return cmp.Compare(x.What, y.What) })
	return a.leaks
}

func (a *audit) warn(service, why, fix, what string, args ...any) {
	a.leaks = append(a.leaks, Leak{finding.Warned(Check, fmt.Sprintf(what, args...), why, fix), service})
}

// virtual notes a service's virtual addresses.
func (a *audit) virtual(s *typesv1.Service) {
	name := s.GetSpec().GetAnnotations().GetName()
	for _, v := range s.GetEndpoint().GetVirtualIps() {
		for _, text := range v.GetAddresses() {
			a.hold(v.GetNetworkId(), text, holder{name: fmt.Sprintf("the service %q", name)})
			if why := a.strange(v.GetNetworkId(), text, nil); why != "" {
				a.warn("", "nobody reaches the service by it", "remove the network from the service and add it again: shoal service update --network-rm, --network-add",
					"%s of the service %q is %s", bare(text), name, why)
			}
		}
	}
}

// task notes a task's addresses, and says what is wrong with them.
func (a *audit) task(t *typesv1.Task, now time.Time) {
	service, node := a.services[t.GetServiceId()], a.nodes[t.GetDecided().GetNodeId()]
	name := "the task " + state.TaskName(service, t)
	since := t.GetDecided().GetSince().AsTime()
	for _, ta := range t.GetDecided().GetAddresses() {
		for _, text := range ta.GetAddresses() {
			own := t.GetServiceId()
			if service == nil {
				own = ""
			}
			a.hold(ta.GetNetworkId(), text, holder{name: name, service: own, since: t.GetMeta().GetCreatedAt().AsTime()})
			why := a.strange(ta.GetNetworkId(), text, node)
			switch {
			case node == nil:
				a.warn("", "nobody else gets it, and nobody has it", "a scheduler forgets such tasks: shoal node ls says whether one is active", "%s is held by %s, whose machine is gone from the cluster", bare(text), name)
			case why != "":
				a.warn(own, "the task is not reached by it", fmt.Sprintf(repair, service.GetSpec().GetAnnotations().GetName()), "%s of %s is %s", bare(text), name, why)
			case t.GetDecided().GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && service != nil:
			case node.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_DOWN:
				a.warn("", "its container may run there still, so nobody else gets it", "bring the machine back, or, if it is off for good, shoal node rm --force "+state.Hostname(node),
					"%s is held by %s, which is to end on %s, and that is down", bare(text), name, state.Hostname(node))
			case now.Sub(since) > toEnd(state.SpecOf(service, t.GetSpecVersion()).GetContainer())+overdue:
				// Since when is no part of what a later look must find again.
				a.warn("", fmt.Sprintf("it was to end %s ago; its container may run there still, so nobody else gets it", now.Sub(since).Round(time.Minute)),
					"shoal doctor on "+state.Hostname(node)+" says what holds it up", "%s is held by %s, which was to end on %s", bare(text), name, state.Hostname(node))
			}
		}
	}
}

// toEnd is how long a container may take to end: its connections have time first.
func toEnd(c *typesv1.ContainerSpec) time.Duration {
	return c.GetDrainTime().AsDuration() + c.GetStopGracePeriod().AsDuration()
}

func (a *audit) hold(network, address string, h holder) {
	claim := state.AddressClaim(network, address)
	a.holders[claim] = append(a.holders[claim], h)
}

// strange says why an address cannot be one of a network, the machine network when that is empty.
func (a *audit) strange(network, address string, node *typesv1.Node) string {
	at, err := netip.ParsePrefix(address)
	if err != nil {
		return "no address"
	}
	subnets, of := a.networks[network].GetIpam().GetSubnets(), "no subnet of the network "+a.networks[network].GetSpec().GetAnnotations().GetName()
	switch {
	case network == "" && len(node.GetBlocks()) == 0:
		return "" // it has none, or is not there, which is told
	case network == "":
		subnets, of = node.GetBlocks(), "no block of the machine "+state.Hostname(node)
	case a.networks[network] == nil:
		return "on the network " + network + ", which is gone"
	}
	for _, text := range subnets {
		if p, err := netip.ParsePrefix(text); err == nil && p.Contains(at.Addr()) {
			return ""
		}
	}
	return "in " + of
}

// twice tells who hold one address. The youngest tasks give way.
func (a *audit) twice() {
	for claim, list := range a.holders {
		if len(list) < 2 {
			continue
		}
		slices.SortStableFunc(list, func(x, y holder) int { return y.since.Compare(x.since) })
		var names []string
		service := ""
		for _, h := range list {
			names = append(names, h.name)
			if service == "" {
				service = h.service
			}
		}
		slices.Sort(names)
		fix := "remove one of them"
		if service != "" {
			fix = fmt.Sprintf(repair, a.services[service].GetSpec().GetAnnotations().GetName())
		}
		words := strings.Split(claim, "/") // "address", the network or "-", the address
		a.leaks = append(a.leaks, Leak{finding.Faulty(Check, fmt.Sprintf("%s is held by %s", words[2], strings.Join(names, " and ")),
			"what is for one of them reaches the other", fix), service})
	}
}

func bare(text string) string {
	addr, _, _ := strings.Cut(text, "/")
	return addr
}
