// Package examine says what is wrong with a machine's network, and with the ways from it to others, by facts that somebody else has
// gathered.
//
// It owns what is a fault, why, and what to do next. It is pure: no kernel, no socket, no clock.
package examine

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/neighbour"
)

// Facts are what a machine's kernel says of its network.
type Facts struct {
	// Settings are sysctls by their paths; one that the kernel lacks is not there.
	Settings map[string]string
	// Routes are those that are not ours.
	Routes []Route
	// Forward are the packet filter's chains for forwarded packets whose policy is to drop, ours left out.
	Forward []Chain
	// Tunnel is the most that the machine network's tunnel takes in a packet; 0: there is no tunnel.
	Tunnel int
	// Tracked is how many connections the kernel knows, and Room how many it can.
	Tracked, Room uint64
	// Neighbours is how many of both families the kernel's tables have, where it says so: of the fuller one.
	Neighbours uint64
}

// Route is one of a machine's.
type Route struct {
	Prefix netip.Prefix
	Link   string
}

// Chain is one of the packet filter's.
type Chain struct {
	// Name is family, table and chain, as nft writes them.
	Name string
	// LetsPass says that a rule of ours in it lets our links pass.
	LetsPass bool
}

// Network is one of the cluster's, as far as addresses go.
type Network struct {
	Name   string
	Prefix netip.Prefix
	// Routed says that the machine itself has routes into it; else only containers do.
	Routed bool
}

// Settings are the paths that Machine looks at.
func Settings() []string {
	return []string{
		"net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/" + kernel.MachineBridge + "/rp_filter",
		"net/ipv4/conf/" + kernel.MachineTunnel + "/rp_filter", "net/bridge/bridge-nf-call-iptables", neighbour.Path("ipv4"), neighbour.Path("ipv6"),
	}
}

// Machine looks at one machine.
func Machine(f Facts, networks []Network) []finding.Finding {
	return slices.Concat(reverse(f), forwarding(f), forward(f), bridged(f), routes(f, networks), room(f), neighbours(f, true))
}

// Room looks at what all containers of a machine share, also where no meshproxy runs yet.
func Room(f Facts) []finding.Finding { return slices.Concat(room(f), neighbours(f, false)) }

// reverse is the filter of sources: the kernel takes the stricter of a link's own and everybody's, where loose (2) counts as less
// than strict only by its number.
func reverse(f Facts) []finding.Finding {
	const check = "rp_filter"
	all := f.Settings["net/ipv4/conf/all/rp_filter"]
	var out []finding.Finding
	for _, link := range []string{kernel.MachineBridge, kernel.MachineTunnel} {
		own, there := f.Settings["net/ipv4/conf/"+link+"/rp_filter"]
		if there && max(all, own) == "1" {
			out = append(out, finding.Faulty(check, link+" takes packets only from where it would send the answer (rp_filter 1)",
				"connections to published ports that come by another machine are dropped, since their clients are reached some other way",
				"sysctl -w net.ipv4.conf."+link+".rp_filter=2, and find out what sets it: shoal-meshproxy puts it back within 10 s"))
		}
	}
	if len(out) == 0 {
		out = append(out, finding.Well(check, "loose or off where it must be"))
	}
	return out
}

func forwarding(f Facts) []finding.Finding {
	if v, there := f.Settings["net/ipv4/ip_forward"]; there && v != "1" {
		return []finding.Finding{finding.Faulty("forwarding", "the kernel forwards no packets (ip_forward "+v+")",
			"containers reach nobody, and nobody reaches them by this machine", "sysctl -w net.ipv4.ip_forward=1, and find out what sets it")}
	}
	return []finding.Finding{finding.Well("forwarding", "the kernel forwards packets")}
}

func forward(f Facts) []finding.Finding {
	const check = "forward policy"
	var out []finding.Finding
	for _, c := range f.Forward {
		if !c.LetsPass {
			out = append(out, finding.Faulty(check, "the chain "+c.Name+" drops what no rule of it lets pass",
				"what is accepted by shoal's table is dropped there: published ports and containers are cut off",
				`let shoal's links pass it: nft add rule `+c.Name+` iifname "shoal*" accept; nft add rule `+c.Name+` oifname "shoal*" accept`))
		}
	}
	if len(out) == 0 {
		out = append(out, finding.Well(check, "no other chain drops what it does not know"))
	}
	return out
}

// bridged matters only together with a chain that drops.
func bridged(f Facts) []finding.Finding {
	const check = "br_netfilter"
	on := f.Settings["net/bridge/bridge-nf-call-iptables"] == "1"
	if on && slices.ContainsFunc(f.Forward, func(c Chain) bool { return !c.LetsPass }) {
		return []finding.Finding{finding.Warned(check, "frames within a bridge pass the packet filter, where a chain drops what it does not know",
			"containers of one network on this machine are cut off from each other, too", "let shoal's links pass that chain, or sysctl -w net.bridge.bridge-nf-call-iptables=0")}
	}
	if on {
		return []finding.Finding{finding.Well(check, "frames within a bridge pass the packet filter, which lets ours pass")}
	}
	return []finding.Finding{finding.Well(check, "frames within a bridge do not pass the packet filter")}
}

func routes(f Facts, networks []Network) []finding.Finding {
	const check = "routes"
	var out []finding.Finding
	for _, r := range f.Routes {
		if r.Prefix.Bits() == 0 {
			continue
		}
		for _, n := range networks {
			what := fmt.Sprintf("the route %s by %s overlaps %s %s", r.Prefix, r.Link, n.Name, n.Prefix)
			switch {
			case !n.Prefix.Overlaps(r.Prefix):
			case n.Routed && r.Prefix.Bits() >= n.Prefix.Bits():
				out = append(out, finding.Faulty(check, what, "what is for containers goes another way, or the other way round",
					"give one of them another range; ip route show to match "+r.Prefix.Addr().String()+" says which is taken"))
			case !n.Routed:
				out = append(out, finding.Warned(check, what, "containers on that network do not reach what is behind the route",
					"make the network anew with --subnet of a free range"))
			}
		}
	}
	if len(out) == 0 {
		out = append(out, finding.Well(check, "no route of the machine overlaps the cluster's networks"))
	}
	return out
}

func room(f Facts) []finding.Finding {
	const check = "conntrack"
	if f.Room == 0 {
		return nil // not told
	}
	share := f.Tracked * 100 / f.Room
	what := fmt.Sprintf("%d of at most %d tracked connections (%d %%)", f.Tracked, f.Room, share)
	const why, fix = "when it is full new connections are dropped", "sysctl -w net.netfilter.nf_conntrack_max=%d, and `shoal top connections` shows who has so many"
	switch {
	case share >= 95:
		return []finding.Finding{finding.Faulty(check, what, why, fmt.Sprintf(fix, 2*f.Room))}
	case share >= 75:
		return []finding.Finding{finding.Warned(check, what, why, fmt.Sprintf(fix, 2*f.Room))}
	}
	return []finding.Finding{finding.Well(check, "%s", what)}
}

// neighbours looks at the room for them, which the kernel says in the machine's first network namespace alone. A meshproxy that runs
// raises it: where it is low, somebody else lowers it or the meshproxy may not write it.
func neighbours(f Facts, raised bool) []finding.Finding {
	const check = "neighbours"
	var out []finding.Finding
	for _, family := range []string{"ipv4", "ipv6"} {
		text, there := f.Settings[neighbour.Path(family)]
		most, err := strconv.ParseUint(text, 10, 64)
		if !there || err != nil {
			continue
		}
		what := fmt.Sprintf("%d neighbours now, and room for %d of %s", f.Neighbours, most, family)
		const why, fix = "when the table is full the kernel says `neighbor table overflow`, and first connections get no answer", "sysctl -w net.%[1]s.neigh.default.gc_thresh3=%[2]d net.%[1]s.neigh.default.gc_thresh2=%[3]d"
		switch {
		case f.Neighbours >= most:
			out = append(out, finding.Faulty(check, what, why, fmt.Sprintf(fix, family, 2*f.Neighbours, f.Neighbours)))
		case raised && most < neighbour.Room:
			out = append(out, finding.Warned(check, what+", which one container can fill", why, fmt.Sprintf(fix, family, neighbour.Room, neighbour.Room/2)+", and find out what sets it: shoal-meshproxy raises it every 10 s"))
		default:
			out = append(out, finding.Well(check, "%s", what))
		}
	}
	return out
}

// Way is what was tried from one machine to another.
type Way struct {
	// Peer is the other's id, and At its address.
	Peer, At string
	// Ports are the doors of its processes.
	Ports []Door
	// Tunnel says that there should be one, Heard that something came back through it.
	Tunnel, Heard bool
	// Full is the most that goes into it, and Largest the most that came through; 0: not measured.
	Full, Largest int
	// DataPort is the UDP port of the tunnel.
	DataPort uint16
}

// Door is a port of a process.
type Door struct {
	Process, Address string
	// Fault is why it was not reached; empty: it was.
	Fault string
}

// Peer looks at the way to one machine.
func Peer(w Way) []finding.Finding {
	var out []finding.Finding
	for _, d := range w.Ports {
		if d.Fault != "" {
			out = append(out, finding.Faulty("port "+d.Process, fmt.Sprintf("%s at %s is not reached: %s", d.Process, d.Address, d.Fault),
				"this machine can't talk to that process", "let TCP "+d.Address[strings.LastIndex(d.Address, ":")+1:]+" pass between the machines, or start shoal-"+d.Process+" there"))
		}
	}
	switch {
	case !w.Tunnel:
	case !w.Heard:
		out = append(out, finding.Faulty("tunnel", fmt.Sprintf("nothing comes back through the tunnel to %s", w.At),
			"tasks on that machine are not reached from this one: published ports, virtual addresses, overlays",
			fmt.Sprintf("let UDP %d pass between the machines in both directions", w.DataPort)))
	case w.Largest > 0 && w.Largest < w.Full:
		out = append(out, finding.Faulty("mtu", fmt.Sprintf("packets of more than %d bytes do not come through the tunnel to %s, though the links take %d", w.Largest, w.At, w.Full),
			"connections open, and hang at the first large answer",
			fmt.Sprintf("set the MTU of this machine's link to %d, as the path has it, or let the path carry more", w.Largest+50)))
	}
	if len(out) == 0 {
		out = append(out, finding.Well("way", "%s is reached: ports%s", w.At, tunnel(w)))
	}
	return out
}

func tunnel(w Way) string {
	switch {
	case !w.Tunnel:
		return ""
	case w.Largest == 0:
		return " and tunnel"
	}
	return fmt.Sprintf(" and tunnel, with %d bytes in a packet", w.Largest)
}
