package machine

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/finding"

	"github.com/shoalproject/shoal/cli/internal/doctor"
	"github.com/shoalproject/shoal/cli/internal/layout"
)

// Doctor looks at this machine.
func (m *Machine) Doctor() *doctor.Doctor {
	return &doctor.Doctor{Env: m.Env, Programs: m.Programs, System: m.Host, Accounts: m.Host, Layout: m.layout()}
}

// preflight looks whether the roles can run here, and tells all faults at once. Nothing has been changed yet.
func (m *Machine) preflight(ctx context.Context, what string, roles []authzv1.Role, at place, start Start) error {
	return m.judge(what, m.Doctor().Preflight(ctx, doctor.Patient{
		Roles: roles, Advertise: at.advertise, Listen: at.listen, Configs: m.begun(roles, at), Elsewhere: start == StartNone, DataPort: at.dataPort,
	}))
}

// checkWays looks whether the members that the new processes need can be reached: their units would wait for them without a
// word.
func (m *Machine) checkWays(ctx context.Context, what string, roles []authzv1.Role, start Start) error {
	if start == StartNone {
		return nil // the processes may be on other networks than this command
	}
	return m.judge(what, m.Doctor().Ways(ctx, doctor.Patient{Roles: roles, Machine: m.ID()}))
}

// judge makes an error of faults, and tells warnings.
func (m *Machine) judge(what string, found []finding.Finding) error {
	if err := finding.Err(what, found); err != nil {
		return err
	}
	for _, f := range found {
		if f.Grade == finding.Warning {
			m.Tell("warning: " + f.Check + ": " + f.Text())
		}
	}
	return nil
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

// Examine looks at this machine as it is. One that is in no cluster is looked at as one that could be, with the processes
// that are installed.
func (m *Machine) Examine(ctx context.Context) []finding.Finding {
	if !m.Host.Privileged() {
		return []finding.Finding{finding.Faulty("root", "this takes root", "keys, configuration and the kernel can't be looked at without", "run the command with sudo")}
	}
	has := m.Roles()
	var found []finding.Finding
	if rest := layout.Without(m.certified(), has); len(rest) > 0 {
		found = append(found, finding.Warned("remains", "there are certificates of "+layout.Names(rest)+" without a configuration", "a join did not finish",
			"run it again, or `shoal node reset`"))
	}
	if len(has) == 0 {
		p := doctor.Patient{Roles: m.installed()}
		if at, err := m.place("", ""); err == nil {
			p.Advertise = at.advertise
			p.Configs = m.begun(p.Roles, at)
		}
		return append(found, m.Doctor().Preflight(ctx, p)...)
	}
	_, noUnits := m.Programs.Find("systemctl")
	p := doctor.Patient{Roles: has, Elsewhere: noUnits != nil}
	for _, r := range has {
		if p.Advertise = m.advertised(r); len(p.Advertise) > 0 {
			break
		}
	}
	return append(found, m.Doctor().Examine(ctx, p)...)
}

// installed are the processes whose programs are here; without any, all are missing.
func (m *Machine) installed() []authzv1.Role {
	found := slices.DeleteFunc(layout.All(), func(r authzv1.Role) bool {
		_, err := m.Programs.Find(layout.Unit(r))
		return err != nil
	})
	if len(found) == 0 {
		return layout.All()
	}
	return found
}
