package doctor

import (
	"context"
	"fmt"
	"strings"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/finding"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

// active says that a process's unit runs and is ready.
func (d *Doctor) active(ctx context.Context, role authzv1.Role) bool {
	_, err := d.Programs.Run(ctx, "systemctl", "is-active", "--quiet", layout.Unit(role))
	return err == nil
}

// units: each runs, starts at boot, and says that it is well.
func (d *Doctor) units(ctx context.Context, p Patient) []finding.Finding {
	if _, err := d.Programs.Find("systemctl"); err != nil {
		return nil // initSystem has told it, or somebody else starts them
	}
	var found []finding.Finding
	for _, r := range p.Roles {
		found = append(found, d.unit(ctx, r))
	}
	return found
}

func (d *Doctor) unit(ctx context.Context, role authzv1.Role) finding.Finding {
	name := layout.Unit(role)
	if !d.active(ctx, role) {
		return finding.Faulty(name, "the unit is not active", "", fmt.Sprintf("systemctl start %s; journalctl -u %s says why it ended", name, name))
	}
	if _, err := d.Programs.Run(ctx, "systemctl", "is-enabled", "--quiet", name); err != nil {
		return finding.Warned(name, "the unit runs, but does not start at boot", "", "systemctl enable "+name)
	}
	program, err := d.Programs.Find(name)
	if err != nil || !d.System.Privileged() {
		return finding.Well(name, "the unit runs")
	}
	out, err := d.Programs.Run(ctx, program, "health", "-config", d.Layout.Config(role))
	if err == nil {
		return finding.Well(name, "the unit runs, and all its parts are well")
	}
	var waits []string
	for line := range strings.Lines(out) {
		if part, why, ok := strings.Cut(strings.TrimSpace(line), ": waits: "); ok {
			waits = append(waits, part+" "+why)
		}
	}
	if len(waits) == 0 {
		return finding.Warned(name, "the unit runs, but does not say how it is: "+err.Error(), "", "journalctl -u "+name)
	}
	return finding.Warned(name, "waits: "+strings.Join(waits, ", "), "", "journalctl -u "+name)
}
