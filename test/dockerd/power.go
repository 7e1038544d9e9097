package dockerd

import (
	"context"
	"fmt"
)

// stopLimit is how long dockerd may take to stop its containers and end, in seconds.
const stopLimit = 60

// Stop ends dockerd as its unit would: it stops its containers first. The host and its containerd go on.
func (d *Daemon) Stop(ctx context.Context) error {
	const script = `set -e
[ -e /run/docker.pid ] || exit 0
pid=$(cat /run/docker.pid)
kill -TERM "$pid"
timeout %d tail --pid="$pid" -f /dev/null`
	if _, err := d.Run(ctx, d.host, fmt.Sprintf(script, stopLimit)); err != nil {
		return fmt.Errorf("stop dockerd: %w", err)
	}
	return nil
}

// Restart stops dockerd and starts it again. Containers with a restart policy come back by themselves.
func (d *Daemon) Restart(ctx context.Context) error {
	if err := d.Stop(ctx); err != nil {
		return err
	}
	return d.boot(ctx)
}

// PowerCycle cuts the host's power and boots it: every process dies at once, the disk stays, and dockerd is started.
func (d *Daemon) PowerCycle(ctx context.Context) error {
	if err := d.lab.PowerOff(ctx, d.host); err != nil {
		return err
	}
	if err := d.lab.PowerOn(ctx, d.host); err != nil {
		return err
	}
	return d.boot(ctx)
}

// Close removes everything: a lab of the daemon's own with all that is on it, or, on a caller's lab, what dockerd runs;
// there the caller's Down removes the rest.
func (d *Daemon) Close() error {
	if d.own {
		return d.lab.Down()
	}
	return d.Stop(context.Background())
}
