package process

import (
	"context"

	"github.com/shoalproject/shoal/internal/run"
)

// Alive adds a part that must answer for the process to be taken as alive: its main loop. Call it before Go. What the probe
// must promise stands at run.Probe.
func (p *Process) Alive(name string, ask func(ctx context.Context) error) {
	p.probes = append(p.probes, run.Probe{Name: name, Ask: ask})
}

// askHealth takes the locks that every part of a process needs some time.
func (p *Process) askHealth(context.Context) error {
	p.Server.Health().Serving()
	p.Keeper.Certificate()
	return nil
}
