package doctor

import (
	"context"
	"slices"
	"strings"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

func (d *Doctor) privilege(context.Context, Patient) []finding.Finding {
	if d.System.Privileged() {
		return nil
	}
	return []finding.Finding{finding.Faulty("root", "this takes root", "", "run the command with sudo")}
}

func (d *Doctor) initSystem(_ context.Context, p Patient) []finding.Finding {
	_, err := d.Programs.Find("systemctl")
	switch {
	case err != nil && p.Elsewhere:
		return []finding.Finding{finding.Well("systemd", "there is no systemctl: somebody else starts the processes")}
	case err != nil:
		return []finding.Finding{finding.Faulty("systemd", "there is no systemctl on this machine", "the processes are started as units",
			"use a machine with systemd, or `--start none` and start the processes yourself")}
	}
	return []finding.Finding{finding.Well("systemd", "systemctl is there")}
}

func (d *Doctor) programs(_ context.Context, p Patient) []finding.Finding {
	var out []finding.Finding
	for _, r := range p.Roles {
		if _, err := d.Programs.Find(layout.Unit(r)); err != nil {
			out = append(out, finding.Faulty(layout.Unit(r), "there is no such program beside shoal or on the PATH", "", "install the package"))
		}
	}
	return out
}

// versions tells programs of another build: a package that was upgraded half.
func (d *Doctor) versions(ctx context.Context, p Patient) []finding.Finding {
	own := run.FullVersion()
	var odd []string
	for _, r := range p.Roles {
		program, err := d.Programs.Find(layout.Unit(r))
		if err != nil {
			continue // programs has told it
		}
		out, err := d.Programs.Run(ctx, program, "-version")
		if err == nil && !strings.Contains(out, own) {
			odd = append(odd, strings.TrimSpace(out))
		}
	}
	if len(odd) > 0 {
		return []finding.Finding{finding.Warned("versions", "shoal is "+own+", but "+strings.Join(odd, ", "),
			"programs of different builds work together, but one of them may have been forgotten", "install one version of all packages")}
	}
	return []finding.Finding{finding.Well("versions", "all programs are %s", own)}
}

// containers and kernel ask the programs that may look: containerd is the agent's, the kernel's tables the meshproxy's.
func (d *Doctor) containers(ctx context.Context, p Patient) []finding.Finding {
	return d.ask(ctx, p, authzv1.Role_ROLE_AGENT)
}

func (d *Doctor) kernel(ctx context.Context, p Patient) []finding.Finding {
	return d.ask(ctx, p, authzv1.Role_ROLE_MESHPROXY)
}

func (d *Doctor) ask(ctx context.Context, p Patient, role authzv1.Role) []finding.Finding {
	program, err := d.Programs.Find(layout.Unit(role))
	if !slices.Contains(p.Roles, role) || !d.System.Privileged() || err != nil {
		return nil
	}
	// Its exit code says whether there are faults, and so do its findings.
	out, err := d.Programs.Run(ctx, program, "doctor", "-format", "json", "-config", d.Layout.Config(role))
	found, fault := finding.Parse([]byte(out))
	if fault == nil {
		return found
	}
	if err == nil {
		err = fault
	}
	return []finding.Finding{finding.Faulty(layout.Unit(role), "`"+layout.Unit(role)+" doctor` could not look: "+err.Error(), "", "install one version of all packages")}
}
