package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
)

const (
	// maxSkew is what a CA accepts; someSkew is what a person should look at.
	maxSkew, someSkew = 5 * time.Minute, 5 * time.Second
	// callLimit bounds one question to a member.
	callLimit = 3 * time.Second

	reachPrefix = "reach "
)

// dials says which processes a process connects to.
func dials(role authzv1.Role) []authzv1.Role {
	const ca, store, dispatcher = authzv1.Role_ROLE_CA, authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_DISPATCHER
	switch role {
	case authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY:
		return []authzv1.Role{ca, dispatcher}
	case authzv1.Role_ROLE_GATEWAY:
		return []authzv1.Role{ca, store, dispatcher, authzv1.Role_ROLE_SCHEDULER}
	case ca:
		return []authzv1.Role{store}
	default:
		return []authzv1.Role{ca, store}
	}
}

// known is who is where, as the processes of this machine have last heard it.
func (d *Doctor) known(p Patient) map[authzv1.Role][]*cav1.DirectoryEntry {
	out := map[authzv1.Role][]*cav1.DirectoryEntry{}
	for _, r := range p.Roles {
		dir, err := directory.New(d.Env.Files, path.Join(d.folder(r), "directory.json"))
		if err != nil {
			continue
		}
		for _, wanted := range dials(r) {
			list := slices.DeleteFunc(slices.Clone(dir.Entries(wanted)), func(e *cav1.DirectoryEntry) bool {
				return p.Machine != "" && e.GetMachineId() == p.Machine
			})
			if len(list) > len(out[wanted]) {
				out[wanted] = list
			}
		}
	}
	return out
}

// reach connects to each member that a process of this machine needs.
func (d *Doctor) reach(ctx context.Context, p Patient) []finding.Finding {
	var found []finding.Finding
	known := d.known(p)
	for _, role := range sortedRoles(known) {
		var dead []string
		total := 0
		for _, e := range known[role] {
			if len(e.GetAddresses()) == 0 {
				continue
			}
			total++
			if err := d.dial(ctx, e.GetAddresses()[0]); err != nil {
				dead = append(dead, err.Error())
			}
		}
		name := reachPrefix + identity.RoleName(role)
		switch {
		case total == 0:
		case len(dead) == total:
			found = append(found, finding.Faulty(name, strings.Join(dead, ", "), "this machine's processes need one of them",
				"see that it runs there, and that no firewall closes the port"))
		case len(dead) > 0:
			found = append(found, finding.Warned(name, fmt.Sprintf("%d of %d answer: %s", total-len(dead), total, strings.Join(dead, ", ")), "",
				"see that it runs there, and that no firewall closes the port"))
		default:
			found = append(found, finding.Well(name, "%d of %d answer", total, total))
		}
	}
	return found
}

// waysReach is reach for processes that are about to start.
func (d *Doctor) waysReach(ctx context.Context, p Patient) []finding.Finding {
	found := d.reach(ctx, p)
	for i, f := range found {
		role, _ := strings.CutPrefix(f.Check, reachPrefix)
		if f.Grade == finding.Fault && !needed(p.Roles, role) {
			found[i].Grade = finding.Warning
		}
	}
	return found
}

// needed says whether roles can't begin without one of another role: each takes a CA's and a store's word, and a node's
// processes are ready when a dispatcher has them in session. What comes along with them need not be there before.
func needed(roles []authzv1.Role, other string) bool {
	for _, r := range roles {
		if identity.RoleName(r) == other {
			return false
		}
	}
	if other == identity.RoleName(authzv1.Role_ROLE_DISPATCHER) {
		return slices.Contains(roles, authzv1.Role_ROLE_AGENT) || slices.Contains(roles, authzv1.Role_ROLE_MESHPROXY)
	}
	return other == identity.RoleName(authzv1.Role_ROLE_CA) || other == identity.RoleName(authzv1.Role_ROLE_STORE)
}

// waysNames are the names of members alone: whether one matters, waysReach tells.
func (d *Doctor) waysNames(ctx context.Context, p Patient) []finding.Finding {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	found, _ := d.memberNames(ctx, p)
	for i := range found {
		found[i].Grade = finding.Warning
	}
	return found
}

func sortedRoles(known map[authzv1.Role][]*cav1.DirectoryEntry) []authzv1.Role {
	var out []authzv1.Role
	for r := range known {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

// clock compares with a CA, whose time is in certificates.
func (d *Doctor) clock(ctx context.Context, p Patient) []finding.Finding {
	if !d.System.Privileged() || len(p.Roles) == 0 {
		return nil
	}
	var last error
	for _, e := range d.known(p)[authzv1.Role_ROLE_CA] {
		for _, address := range e.GetAddresses() {
			skew, err := d.skew(ctx, p, address)
			if err != nil {
				last = err
				continue
			}
			return []finding.Finding{judge(skew, address)}
		}
	}
	if last != nil {
		return []finding.Finding{finding.Warned("clock", "no CA could be asked for its time: "+last.Error(), "", "")}
	}
	return nil
}

func judge(skew time.Duration, address string) finding.Finding {
	text := fmt.Sprintf("it is %s off that of the CA at %s", skew.Abs().Round(time.Millisecond), address)
	switch {
	case skew.Abs() > maxSkew:
		return finding.Faulty("clock", text, fmt.Sprintf("certificates count from the CA's time; at most %s is accepted", maxSkew), "timedatectl set-ntp true")
	case skew.Abs() > someSkew:
		return finding.Warned("clock", text, "times in logs and lists do not match", "timedatectl set-ntp true")
	}
	return finding.Well("clock", "%s", text)
}

// skew is how far ahead of the CA's clock this machine's is.
func (d *Doctor) skew(ctx context.Context, p Patient, address string) (time.Duration, error) {
	root, err := d.root(p)
	if err != nil {
		return 0, err
	}
	conn, err := rpc.DialTLS(d.Env, address, identity.PinnedTLS(d.Env, root, "h2", authzv1.Role_ROLE_CA))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	before := d.Env.Now()
	resp, err := cav1.NewCertificateServiceClient(conn).GetRoot(ctx, &cav1.GetRootRequest{})
	if err != nil {
		return 0, err
	}
	// The answer was made about half-way.
	return before.Add(d.Env.Now().Sub(before) / 2).Sub(resp.GetNow().AsTime()), nil
}

// root is the active root that a process of this machine believes.
func (d *Doctor) root(p Patient) (*x509.Certificate, error) {
	for _, r := range p.Roles {
		data, err := d.Env.Files.Read(path.Join(d.folder(r), "identity", identity.BundleFile))
		if err != nil {
			continue
		}
		if roots, err := identity.DecodeCertificates(data); err == nil {
			return roots[0], nil
		}
	}
	return nil, errs.New(errs.NotFound, "this machine has no root certificate")
}

// names: a member that advertises a host name must be found by it. An own name that is not found delays some programs.
func (d *Doctor) names(ctx context.Context, p Patient) []finding.Finding {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	found, members := d.memberNames(ctx, p)
	if _, err := d.System.Lookup(ctx, d.Env.Host); err != nil {
		return append(found, finding.Warned("names", fmt.Sprintf("this machine's own name %q is not found: %s", d.Env.Host, err), "some programs wait for it",
			"add it to /etc/hosts"))
	}
	return append(found, finding.Well("names", "%s and %d names of members are found", d.Env.Host, members-len(found)))
}

// memberNames are the names of members that are not found, and how many there are.
func (d *Doctor) memberNames(ctx context.Context, p Patient) (found []finding.Finding, members int) {
	wanted := map[string]bool{}
	for _, list := range d.known(p) {
		for _, e := range list {
			for _, a := range e.GetAddresses() {
				if host, _, err := net.SplitHostPort(a); err == nil && !isIP(host) {
					wanted[host] = true
				}
			}
		}
	}
	for host := range wanted {
		if _, err := d.System.Lookup(ctx, host); err != nil {
			found = append(found, finding.Faulty("name "+host, err.Error(), "a member is reached by this name", "mend the name server, or add it to /etc/hosts"))
		}
	}
	slices.SortFunc(found, func(a, b finding.Finding) int { return cmp.Compare(a.Check, b.Check) })
	return found, len(wanted)
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}
