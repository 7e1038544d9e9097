package machine

import (
	"context"
	"fmt"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/finding"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

// leftBehind is the check of the agent's doctor for networks of containers that are gone.
const leftBehind = "addresses"

// Repairable says that Repair ends what was found.
func Repairable(f finding.Finding) bool { return f.Check == leftBehind && f.Grade != finding.OK }

// Repair has the agent start anew: then it removes the networks that no container has, and it alone knows which those are. Containers run
// on meanwhile.
func (m *Machine) Repair(ctx context.Context) error {
	unit := layout.Unit(authzv1.Role_ROLE_AGENT)
	if _, err := m.Programs.Run(ctx, "systemctl", "restart", unit); err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	m.Tell("restarted " + unit + ", which removes the networks that containers have left behind")
	return nil
}
