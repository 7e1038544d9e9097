//go:build chaos

package e2e

import "testing"

// The same with processes that are restarted as by an upgrade.
func TestEveryProcessRestarted(t *testing.T) {
	everyProcess(t, "restarted", func(c *cluster, host, process string) { c.on(host, "systemctl", "restart", process) })
}
