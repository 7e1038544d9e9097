package names

import (
	"net/netip"
	"strconv"
	"strings"
)

// Type is what is asked for.
type Type int

// The types that the cluster has records of. Of any other type its names have none.
const (
	Other Type = iota
	A
	AAAA
	PTR
	SRV
)

// Verdict is what a name is.
type Verdict int

const (
	// Elsewhere is a name that is not the cluster's: somebody outside may know it.
	Elsewhere Verdict = iota
	// Exists is a name of the cluster, with or without records of the type.
	Exists
	// Missing is a name that could only be the cluster's, and is not there.
	Missing
)

// Answer is what a container is told. Names are in lower case and without the last dot.
type Answer struct {
	Verdict   Verdict
	Addresses []netip.Addr // for A and AAAA
	Names     []string     // for PTR
	Services  []Target     // for SRV
}

// Target is where a port is.
type Target struct {
	Name      string
	Port      uint16
	Addresses []netip.Addr // of both families
}

// Prefixes and suffixes of names that are not a service's own.
const (
	tasksPrefix = "tasks."
	reverse4    = ".in-addr.arpa"
	reverse6    = ".ip6.arpa"
	shortID     = 12 // as a container calls itself
)

// Resolve answers for a container. The name may have a last dot.
func (c *Client) Resolve(name string, t Type) Answer {
	name = fold(name)
	switch {
	case strings.HasSuffix(name, reverse4) || strings.HasSuffix(name, reverse6):
		return c.reverse(name, t)
	case strings.HasPrefix(name, "_"):
		return c.ports(name, t)
	}
	verdict, found := c.lookup(name)
	out := Answer{Verdict: verdict}
	for _, a := range found {
		if (t == A && a.Is4()) || (t == AAAA && a.Is6()) {
			out.Addresses = append(out.Addresses, a)
		}
	}
	return out
}

// lookup tries the container's networks in turn; a name that ends with a network's means that network alone. Services of one
// name or alias answer together.
func (c *Client) lookup(name string) (Verdict, []netip.Addr) {
	verdict := Elsewhere
	var all []netip.Addr
	for _, n := range c.networks {
		if v, found := n.lookup(name); v != Elsewhere {
			verdict, all = best(verdict, v), append(all, found...)
		}
	}
	if verdict != Elsewhere {
		return verdict, all
	}
	rest, last, ok := cutLast(name)
	for _, n := range c.networks {
		if ok && n.name == last {
			v, found := n.lookup(rest)
			verdict, all = best(verdict, v), append(all, found...)
		}
	}
	return verdict, all
}

// best prefers what exists to what is missing, and that to what is elsewhere.
func best(a, b Verdict) Verdict {
	if a == Exists || b == Elsewhere {
		return a
	}
	return b
}

func (n *network) lookup(name string) (Verdict, []netip.Addr) {
	if services := n.services[name]; len(services) > 0 {
		return Exists, each(services, (*service).addresses)
	}
	if e := n.tasks[name]; e != nil {
		return Exists, e.addresses
	}
	if of, ok := strings.CutPrefix(name, tasksPrefix); ok {
		if services := n.services[of]; len(services) > 0 {
			return Exists, each(services, (*service).tasks)
		}
	}
	first, of, ok := strings.Cut(name, ".")
	slot, err := strconv.ParseUint(first, 10, 32)
	if !ok || err != nil || n.services[of] == nil {
		return Elsewhere, nil
	}
	verdict := Missing
	var found []netip.Addr
	for _, s := range n.services[of] {
		for _, e := range s.endpoints {
			if e.slot == slot && slot != 0 {
				verdict, found = Exists, append(found, e.addresses...)
			}
		}
	}
	return verdict, found
}

func each(services []*service, of func(*service) []netip.Addr) []netip.Addr {
	if len(services) == 1 {
		return of(services[0])
	}
	var out []netip.Addr
	for _, s := range services {
		out = append(out, of(s)...)
	}
	return out
}

func (s *service) addresses() []netip.Addr {
	if len(s.vips) > 0 {
		return s.vips
	}
	return s.tasks()
}

func (s *service) tasks() []netip.Addr {
	var out []netip.Addr
	for _, e := range s.endpoints {
		out = append(out, e.addresses...)
	}
	return out
}

// ports answers _<port>._<tcp|udp|sctp>.<service>: every task of it, whatever the endpoint mode, for a client that balances
// itself. On a network every port of a container can be reached, so the number is the caller's.
func (c *Client) ports(name string, t Type) Answer {
	parts := strings.SplitN(name, ".", 3)
	if len(parts) < 3 || (parts[1] != "_tcp" && parts[1] != "_udp" && parts[1] != "_sctp") {
		return Answer{}
	}
	port, err := strconv.ParseUint(strings.TrimPrefix(parts[0], "_"), 10, 16)
	verdict, of := Elsewhere, strings.TrimPrefix(parts[2], tasksPrefix)
	var targets []Target
	for _, n := range c.networks {
		services := n.services[of]
		if rest, last, ok := cutLast(of); ok && last == n.name && services == nil {
			services = n.services[rest]
		}
		for _, s := range services {
			verdict = Exists
			for _, e := range s.endpoints {
				targets = append(targets, Target{Name: e.name, Port: uint16(port), Addresses: e.addresses})
			}
		}
	}
	switch {
	case verdict == Elsewhere:
		return Answer{}
	case err != nil || port == 0:
		return Answer{Verdict: Missing}
	case t != SRV:
		return Answer{Verdict: Exists}
	}
	return Answer{Verdict: Exists, Services: targets}
}

// reverse answers for addresses of the container's networks. One that nobody has is missing: nobody outside may be asked.
func (c *Client) reverse(name string, t Type) Answer {
	addr, ok := addressOf(name)
	if !ok {
		return Answer{}
	}
	for _, n := range c.networks {
		if owner := n.owners[addr]; owner != "" {
			out := Answer{Verdict: Exists}
			if t == PTR {
				out.Names = []string{owner}
			}
			return out
		}
		for _, p := range n.subnets {
			if p.Contains(addr) {
				return Answer{Verdict: Missing}
			}
		}
	}
	return Answer{}
}

// addressOf reads the name of a reverse question (RFC 1035, 3.5; RFC 3596, 2.5).
func addressOf(name string) (netip.Addr, bool) {
	if four, ok := strings.CutSuffix(name, reverse4); ok {
		parts := strings.Split(four, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil
	}
	six := strings.Split(strings.TrimSuffix(name, reverse6), ".")
	if len(six) != 32 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := range six {
		if len(six[31-i]) != 1 {
			return netip.Addr{}, false
		}
		b.WriteString(six[31-i])
		if i%4 == 3 && i != 31 {
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}

func fold(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func short(task string) string { return fold(task[:min(shortID, len(task))]) }

func slotName(slot uint64, service string) string {
	return strconv.FormatUint(slot, 10) + "." + service
}

func cutLast(name string) (rest, last string, ok bool) {
	at := strings.LastIndexByte(name, '.')
	if at < 0 {
		return name, "", false
	}
	return name[:at], name[at+1:], true
}
