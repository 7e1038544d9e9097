// Package preflight looks whether a machine can have a cluster of shoal-dev, before anything is changed, and tells all that
// is in the way at once.
//
// It only looks: what it opens it closes again. It must never mend. A Machine's functions are called one after the other.
package preflight

import (
	"context"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/allinone/internal/parts"
)

// machineBridge is the interface that every machine with containers of shoal has.
const machineBridge = "shoal0"

// answerLimit is how long a socket has to take a connection.
const answerLimit = 2 * time.Second

// Machine is what is asked of the machine.
type Machine struct {
	// Files and Net are the machine's.
	Files run.Files
	Net   run.Network
	// Privileged says whether this is root.
	Privileged bool
	// Addresses are those of its interfaces.
	Addresses func() ([]netip.Addr, error)
	// Links are the names of its interfaces.
	Links func() ([]string, error)
}

// Check tells all faults at once. Ours says that what is in the kernel is that of an earlier run.
func (m Machine) Check(ctx context.Context, at parts.Place, ours bool) error {
	var c errs.Collector
	c.Check(m.Privileged, "", "this takes root, for containers, interfaces and packet filter: run it with sudo")
	m.checkOther(&c, ours)
	if m.Privileged {
		m.checkContainerd(ctx, &c, at.Containerd)
	}
	if m.checkAddress(&c, at.Address) {
		m.checkPorts(ctx, &c, at)
	}
	return c.Err("shoal-dev")
}

// checkOther: interfaces and packet filter of a machine are those of one shoal.
func (m Machine) checkOther(c *errs.Collector, ours bool) {
	for _, role := range parts.Roles() {
		name := path.Join(enroll.DefaultRoot, identity.RoleName(role), "identity", identity.CertFile)
		if _, err := m.Files.Stat(name); err == nil {
			c.Add("", "this machine is in a cluster already (%s): both would use the same ports, interfaces and packet filter; run `shoal leave` first, or use that cluster", path.Dir(path.Dir(name)))
			return
		}
	}
	if ours {
		return
	}
	links, err := m.Links()
	if err != nil {
		c.Add("", "the machine's interfaces could not be read: %s", err)
	}
	if slices.Contains(links, machineBridge) {
		c.Add("", "there is an interface %s, which another shoal has made and left; `shoal-meshproxy reset` removes it, or the machine's next boot", machineBridge)
	}
}

func (m Machine) checkContainerd(ctx context.Context, c *errs.Collector, socket string) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	conn, err := m.Net.Dial(ctx, "unix", socket)
	if err != nil {
		c.Add("containerd", "does not answer at %s: %s; install it (Debian: apt-get install containerd runc) and start it, or name its socket with --containerd", socket, reason(err))
		return
	}
	_ = conn.Close() // it was only to see that somebody answers
}

// checkAddress says whether it makes sense to look at the address's ports.
func (m Machine) checkAddress(c *errs.Collector, address string) bool {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.IsUnspecified() || ip.IsMulticast() {
		c.Add("advertise-addr", "%q is no IP address that others can dial", address)
		return false
	}
	own, err := m.Addresses()
	if err != nil {
		c.Add("", "the machine's addresses could not be read: %s", err)
		return false
	}
	if slices.Contains(own, ip.Unmap()) || ip.IsLoopback() {
		return true
	}
	var texts []string
	for _, a := range own {
		if !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			texts = append(texts, a.String())
		}
	}
	c.Add("advertise-addr", "%s is not an address of this machine, which has %s", address, strings.Join(texts, ", "))
	return false
}

func (m Machine) checkPorts(ctx context.Context, c *errs.Collector, at parts.Place) {
	for _, role := range parts.Roles() {
		port := parts.Port(role)
		if port == 0 {
			continue
		}
		l, err := m.Net.Listen(ctx, "tcp", at.At(role))
		if err != nil {
			c.Add("port "+strconv.Itoa(port), "the %s needs it on %s: %s; `ss -ltnp 'sport = :%d'` tells who has it", identity.RoleName(role), at.Address, reason(err), port)
			continue
		}
		_ = l.Close() // it was only to see that the port is free
	}
}

// reason is the innermost of a network error's words: which socket it was is told already.
func reason(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}
