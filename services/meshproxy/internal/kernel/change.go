package kernel

import (
	"fmt"
	"net/netip"
	"strings"
)

// Verb is what a Change does.
type Verb string

// The verbs, in words for the log.
const (
	Add    Verb = "add"
	Remove Verb = "remove"
	Set    Verb = "set"
	Up     Verb = "up"
)

// Change is one step from a Kernel to another. Exactly one field beside Verb is set.
type Change struct {
	Verb      Verb
	Link      *Link
	Address   *Address
	Route     *Route
	Neighbour *Neighbour
	Forward   *Forward
	Setting   *Setting
	Rules     *Rules
	Peer      netip.Addr
	Policy    *Policy
	Entry     *Entry
	Return    bool
}

// Setting is a sysctl with its value.
type Setting struct{ Path, Value string }

// String is for logs and scripts.
func (c Change) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s ", c.Verb)
	switch {
	case c.Link != nil:
		b.WriteString("link " + c.Link.text(c.Verb))
	case c.Address != nil:
		fmt.Fprintf(&b, "address %s on %s", c.Address.Prefix, c.Address.Link)
	case c.Route != nil:
		b.WriteString(c.Route.text())
	case c.Neighbour != nil:
		fmt.Fprintf(&b, "neighbour %s is %s on %s", c.Neighbour.Addr, c.Neighbour.MAC, c.Neighbour.Link)
	case c.Forward != nil:
		fmt.Fprintf(&b, "forward %s to %s on %s", c.Forward.MAC, c.Forward.VTEP, c.Forward.Link)
	case c.Setting != nil:
		fmt.Fprintf(&b, "%s=%s", c.Setting.Path, c.Setting.Value)
	case c.Rules != nil:
		fmt.Fprintf(&b, "rules %s", c.Rules.Text())
	case c.Policy != nil:
		b.WriteString(c.Policy.text())
	case c.Entry != nil:
		fmt.Fprintf(&b, "entry %s", c.Entry)
	case c.Return:
		b.WriteString("the way back")
	default:
		fmt.Fprintf(&b, "peer %s", c.Peer)
	}
	return b.String()
}

func (r *Route) text() string {
	text := fmt.Sprintf("route %s on %s", r.Prefix, r.Link)
	if r.Local {
		text += " local"
	}
	if r.Source.IsValid() {
		text += " from " + r.Source.String()
	}
	if r.Via.IsValid() {
		text += " via " + r.Via.String()
	}
	if r.Table != 0 {
		text += fmt.Sprintf(" table=%d", r.Table)
	}
	return text
}

func (p *Policy) text() string {
	family := "ipv4"
	if p.IPv6 {
		family = "ipv6"
	}
	return fmt.Sprintf("policy %s in=%s mark=%#x/%#x table=%d", family, p.In, p.Mark, p.Mask, p.Table)
}

func (l *Link) text(v Verb) string {
	if v == Remove || v == Up {
		return l.Name
	}
	parts := []string{l.Name, fmt.Sprintf("mtu=%d", l.MTU)}
	if l.MAC != "" {
		parts = append(parts, "mac="+l.MAC)
	}
	if l.Master != "" {
		parts = append(parts, "master="+l.Master)
	}
	if l.VNI != 0 {
		parts = append(parts, fmt.Sprintf("vni=%d port=%d", l.VNI, l.Port))
		if l.Local.IsValid() {
			parts = append(parts, "local="+l.Local.String())
		}
	}
	if l.Seal {
		parts = append(parts, "wireguard")
	}
	return strings.Join(parts, " ")
}
