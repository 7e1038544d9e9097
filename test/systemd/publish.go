package systemd

import "context"

// Publish replaces what the machines' apt is offered of shoal, and what lies in /srv/shoal, by the packages of a folder.
func (m *Machines) Publish(ctx context.Context, packages string) error {
	return m.publish(ctx, packages)
}
