package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/finding"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

// dialLimit bounds one attempt to connect.
const dialLimit = 2 * time.Second

// place: an address that is not this machine's can't be bound, so it needs another one to listen on.
func (d *Doctor) place(_ context.Context, p Patient) []finding.Finding {
	own, err := d.System.Addresses()
	if err != nil {
		return []finding.Finding{finding.Faulty("address", "the machine's addresses could not be read: "+err.Error(), "", "")}
	}
	found := wellFormed(p)
	for _, a := range p.Advertise {
		if ip, err := netip.ParseAddr(a); err == nil && dialable(ip) && p.Listen == "" && !slices.Contains(own, ip.Unmap()) {
			found = append(found, finding.Faulty("advertise-addr", fmt.Sprintf("%s is not an address of this machine (%s)", a, joined(own)), "",
				"behind address translation, name the own one with --listen-addr"))
		}
	}
	if ip, err := netip.ParseAddr(p.Listen); err == nil && !ip.IsUnspecified() && !slices.Contains(own, ip.Unmap()) {
		found = append(found, finding.Faulty("listen-addr", fmt.Sprintf("%s is not an address of this machine (%s)", p.Listen, joined(own)), "", ""))
	}
	if len(found) == 0 && len(p.Advertise) > 0 {
		found = append(found, finding.Well("address", "the others reach this machine at %s", strings.Join(p.Advertise, ", ")))
	}
	return found
}

// words is place for processes that run elsewhere, where the addresses are those of other interfaces.
func (d *Doctor) words(_ context.Context, p Patient) []finding.Finding { return wellFormed(p) }

func wellFormed(p Patient) []finding.Finding {
	var found []finding.Finding
	for _, a := range p.Advertise {
		switch ip, err := netip.ParseAddr(a); {
		case err != nil:
			found = append(found, finding.Faulty("advertise-addr", fmt.Sprintf("%q is no IP address", a), "", ""))
		case !dialable(ip):
			found = append(found, finding.Faulty("advertise-addr", a+" is no address that others can dial", "", ""))
		}
	}
	if _, err := netip.ParseAddr(p.Listen); p.Listen != "" && err != nil {
		found = append(found, finding.Faulty("listen-addr", fmt.Sprintf("%q is no IP address (each process has its own port)", p.Listen), "", ""))
	}
	return found
}

func dialable(ip netip.Addr) bool { return !ip.IsUnspecified() && !ip.IsMulticast() }

func joined(list []netip.Addr) string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

// listens is where a process listens, or is going to.
func (d *Doctor) listens(p Patient, role authzv1.Role) []string {
	port := strconv.Itoa(layout.Port(role))
	if layout.Port(role) == 0 {
		return nil
	}
	var out []string
	if p.Listen != "" {
		return append(out, net.JoinHostPort(p.Listen, port))
	}
	if set := d.read(role).Listen; len(set) > 0 {
		return set
	}
	for _, a := range p.Advertise {
		out = append(out, net.JoinHostPort(a, port))
	}
	return out
}

// freePorts is for roles that do not run yet. An address that is wrong was told by place.
func (d *Doctor) freePorts(ctx context.Context, p Patient) []finding.Finding {
	if len(finding.Faults(d.place(ctx, p))) > 0 {
		return nil
	}
	var found []finding.Finding
	for _, r := range p.Roles {
		for _, at := range d.listens(p, r) {
			if f := d.free(ctx, r, at); f.Grade != finding.OK {
				found = append(found, f)
			}
		}
	}
	return found
}

func (d *Doctor) free(ctx context.Context, role authzv1.Role, at string) finding.Finding {
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		return finding.Well("port", "%s is told by the check of the configuration", at)
	}
	name := "port " + port
	l, err := d.Env.Net.Listen(ctx, "tcp", at)
	if err != nil {
		return finding.Faulty(name, fmt.Sprintf("%s needs it on %s: %s", layout.Unit(role), host, err), "",
			fmt.Sprintf("`ss -Hltnp sport = :%s` shows who has it", port))
	}
	_ = l.Close() // it was only to see that the port is free
	return finding.Well(name, "free on %s for %s", host, layout.Unit(role))
}

// DefaultDataPort is the UDP port of the networks between machines, unless init has chosen another one.
const DefaultDataPort = 8477

// freeDataPort: the kernel takes the UDP port with the first network that spans machines, and a container that needs it would
// be the first to know.
func (d *Doctor) freeDataPort(ctx context.Context, p Patient) []finding.Finding {
	if !slices.Contains(p.Roles, authzv1.Role_ROLE_MESHPROXY) {
		return nil
	}
	port := strconv.Itoa(cmp.Or(p.DataPort, DefaultDataPort))
	l, err := d.Env.Net.ListenPacket(ctx, "udp", ":"+port)
	if err == nil {
		_ = l.Close() // it was only to see that the port is free
		return []finding.Finding{finding.Well("UDP port "+port, "free for networks between machines")}
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return nil // a machine without one of the address families
	}
	found := finding.Faulty("UDP port "+port, "somebody has it", "networks between machines need it",
		fmt.Sprintf("`ss -Hlunp sport = :%s` and `ip -d link show type vxlan` show who has it; `shoal init --data-path-port` takes another one", port))
	if p.DataPort == 0 {
		found.Grade, found.Why = finding.Warning, "networks between machines need it, unless the cluster was begun with another one"
	}
	return []finding.Finding{found}
}

// ports: each is ours, if our process runs, or else free.
func (d *Doctor) ports(ctx context.Context, p Patient) []finding.Finding {
	var found []finding.Finding
	for _, r := range p.Roles {
		for _, at := range d.listens(p, r) {
			if p.Elsewhere || d.active(ctx, r) {
				found = append(found, d.answers(ctx, r, at))
			} else {
				found = append(found, d.free(ctx, r, at))
			}
		}
	}
	return found
}

// answers connects as the others do. A process that listens on all addresses is asked at one.
func (d *Doctor) answers(ctx context.Context, role authzv1.Role, at string) finding.Finding {
	host, port, err := net.SplitHostPort(at)
	name := "port " + port
	if err != nil {
		return finding.Well("port", "%s is told by the check of the configuration", at)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		at = net.JoinHostPort("127.0.0.1", port)
	}
	if err := d.dial(ctx, at); err != nil {
		return finding.Faulty(name, fmt.Sprintf("nothing answers on %s: %s", at, err), "others can't reach "+layout.Unit(role), "journalctl -u "+layout.Unit(role))
	}
	return finding.Well(name, "%s answers on %s", layout.Unit(role), at)
}

func (d *Doctor) dial(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := d.Env.Net.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
