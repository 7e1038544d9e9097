package machine

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// preflight looks whether the roles can run here, and tells all faults at once. Nothing has been changed yet.
func (m *Machine) preflight(ctx context.Context, what string, roles []authzv1.Role, at place) error {
	var c errs.Collector
	c.Check(m.Host.Privileged(), "", "this takes root; run the command with sudo")
	if _, err := m.Programs.Find("systemctl"); err != nil {
		c.Add("systemd", "there is no systemctl on this machine")
	}
	for _, r := range roles {
		_, err := m.Programs.Find(unit(r))
		c.Check(err == nil, unit(r), "there is no such program beside shoal or on the PATH; install the package")
	}
	if slices.Contains(roles, authzv1.Role_ROLE_AGENT) {
		socket := m.path(containerd)
		c.Check(m.exists(socket), "containerd", "there is no socket %s; install containerd and start it", socket)
	}
	m.checkPlace(&c, at)
	if c.Len() == 0 {
		m.checkPorts(ctx, &c, roles, at)
	}
	return c.Err(what)
}

// checkPlace: an address that is not this machine's can't be bound, so it needs another one to listen on.
func (m *Machine) checkPlace(c *errs.Collector, at place) {
	own, err := m.Host.Addresses()
	if err != nil {
		c.Add("", "the machine's addresses could not be read: %s", err)
		return
	}
	for _, a := range at.advertise {
		ip, err := netip.ParseAddr(a)
		switch {
		case err != nil:
			c.Add("advertise-addr", "%q is no IP address", a)
		case ip.IsUnspecified() || ip.IsMulticast():
			c.Add("advertise-addr", "%s is no address that others can dial", a)
		case at.listen == "" && !slices.Contains(own, ip.Unmap()):
			c.Add("advertise-addr", "%s is not an address of this machine (%s); behind address translation, name the own one with --listen-addr", a, joined(own))
		}
	}
	if ip, err := netip.ParseAddr(at.listen); at.listen != "" && err != nil {
		c.Add("listen-addr", "%q is no IP address (each process has its own port)", at.listen)
	} else if at.listen != "" && !ip.IsUnspecified() {
		c.Check(slices.Contains(own, ip.Unmap()), "listen-addr", "%s is not an address of this machine (%s)", at.listen, joined(own))
	}
}

func (m *Machine) checkPorts(ctx context.Context, c *errs.Collector, roles []authzv1.Role, at place) {
	hosts := at.advertise
	if at.listen != "" {
		hosts = []string{at.listen}
	}
	for _, r := range roles {
		p := port(r)
		if p == 0 {
			continue
		}
		for _, h := range hosts {
			l, err := m.Env.Net.Listen(ctx, "tcp", net.JoinHostPort(h, strconv.Itoa(p)))
			if err != nil {
				c.Add("port "+strconv.Itoa(p), "%s needs it on %s: %s", unit(r), h, err)
				continue
			}
			_ = l.Close() // it was only to see that the port is free
		}
	}
}

// pick finds the address to advertise when the person has not said: there must be one alone.
func (m *Machine) pick() (string, error) {
	own, err := m.Host.Addresses()
	if err != nil {
		return "", errs.New(errs.Unavailable, "read this machine's addresses: %w", err)
	}
	outer := slices.DeleteFunc(slices.Clone(own), func(a netip.Addr) bool { return !a.IsGlobalUnicast() })
	v4 := slices.DeleteFunc(slices.Clone(outer), func(a netip.Addr) bool { return !a.Is4() })
	for _, list := range [][]netip.Addr{v4, outer} {
		if len(list) == 1 {
			return list[0].String(), nil
		}
	}
	if len(outer) == 0 {
		return "", errs.New(errs.Precondition, "this machine has no address that others could dial; give it one, or name one with --advertise-addr")
	}
	return "", errs.New(errs.Invalid, "could not choose an IP address to advertise, since this machine has several (%s); name one with --advertise-addr", joined(outer))
}

func joined(list []netip.Addr) string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}
