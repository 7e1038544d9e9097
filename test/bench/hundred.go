package main

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

const (
	many        = 100 // real containers on one machine
	aimAgentMiB = "≤ 40"
	aimAgentCPU = "≤ 0.5"
)

// hundredContainers is what an agent costs that has a hundred containers and nothing to do.
func hundredContainers(ctx context.Context, b *bench, o orchestrator) error {
	name := b.name("many")
	if err := o.create(ctx, service{name: name, replicas: many}); err != nil {
		return err
	}
	if _, err := until(ctx, "all containers run", hollowLimit, func(ctx context.Context) string {
		n, err := o.counted(ctx, name)
		if err != nil || n < many {
			return fmt.Sprintf("%d of %d: %v", n, many, err)
		}
		return ""
	}); err != nil {
		return err
	}
	if err := run.Sleep(ctx, time.Minute); err != nil { // what was needed to make them is given back by then
		return err
	}
	for range b.cfg.FaultRuns {
		from, err := usageOf(ctx, o.on().Lab, "m1", "shoal-agent")
		if err != nil {
			return err
		}
		if err := run.Sleep(ctx, hollowLook); err != nil {
			return err
		}
		to, err := usageOf(ctx, o.on().Lab, "m1", "shoal-agent")
		if err != nil {
			return err
		}
		b.report.add(o.who(), "agent with 100 containers, settled", "% of a CPU", aimAgentCPU, 100*(to.cpu-from.cpu).Seconds()/to.at.Sub(from.at).Seconds())
		b.report.add(o.who(), "agent with 100 containers, memory", unitMemory, aimAgentMiB, to.memory.resident)
	}
	return o.remove(ctx, name)
}
