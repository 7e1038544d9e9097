package main

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/bench/logpath"
	"github.com/shoalproject/shoal/test/bench/poll"
	"github.com/shoalproject/shoal/test/bench/usage"
)

const (
	many        = 100 // real containers on one machine
	agentLook   = 20 * time.Second
	aimAgentMiB = "≤ 40"
	aimAgentCPU = "≤ 0.5"
)

// hundredContainers is what an agent costs that has a hundred containers and nothing to do.
func hundredContainers(ctx context.Context, b *bench, o orchestrator) error {
	name := b.name("many")
	if err := o.create(ctx, service{name: name, replicas: many}); err != nil {
		return err
	}
	if _, err := poll.Until(ctx, "all containers run", healLimit, func(ctx context.Context) string {
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
		from, err := usage.Of(ctx, o.on().Lab, "m1", "shoal-agent")
		if err != nil {
			return err
		}
		if err := run.Sleep(ctx, agentLook); err != nil {
			return err
		}
		to, err := usage.Of(ctx, o.on().Lab, "m1", "shoal-agent")
		if err != nil {
			return err
		}
		b.report.add(o.who(), "agent with 100 containers, settled", "% of a CPU", aimAgentCPU, to.Busy(from))
		b.report.add(o.who(), "agent with 100 containers, memory", unitMemory, aimAgentMiB, to.Memory.Resident)
	}
	return o.remove(ctx, name)
}

// logPath measures how fast one container's output is kept, for which no cluster is there.
func logPath(ctx context.Context, b *bench, _ []orchestrator) error {
	rates, err := logpath.Measure(ctx, b.cfg.Root, b.cfg.Runs)
	for _, r := range rates {
		b.report.add(ours, "log path, lines of "+r.Line+" bytes", "MB/s", "100 MB/s", r.Each)
	}
	return err
}
