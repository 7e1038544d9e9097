package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/bench/poll"
	"github.com/shoalproject/shoal/test/bench/usage"
	"github.com/shoalproject/shoal/test/harness"
)

// idleFor is how long a cluster without a service is left alone before its memory is read.
const idleFor = time.Minute

const (
	unitMemory  = "MiB"
	aimProcess  = "< 25"
	aimTogether = "< 150"
	aimDev      = "< 80"
)

// idleMemory reads what the processes of a manager that also runs containers have in memory, and what shoal-dev has, which
// is all of them in one.
func idleMemory(ctx context.Context, b *bench, o orchestrator) error {
	names := []string{"dockerd"}
	if o.who() == ours {
		names = []string{"store", "ca", "scheduler", "dispatcher", "gateway", "agent", "meshproxy"}
	}
	var dev *harness.Lab
	if o.who() == ours {
		var err error
		if dev, err = b.startDev(ctx); dev != nil {
			defer func() { _ = dev.Down() }() // the next run removes what is left
		}
		if err != nil {
			return err
		}
	}
	if err := run.Sleep(ctx, idleFor); err != nil {
		return err
	}
	total := usage.Memory{}
	for _, name := range names {
		program := name
		if o.who() == ours {
			program = "shoal-" + name
		}
		m, err := usage.MemoryOf(ctx, o.on().Lab, "m1", program)
		if err != nil {
			return err
		}
		total.Add(m)
		if o.who() == ours {
			b.memory(o.who(), "idle: "+name, aimProcess, m)
		}
	}
	b.memory(o.who(), "idle: all of a manager", aimTogether, total)
	if dev == nil {
		return nil
	}
	m, err := usage.MemoryOf(ctx, dev, "m1", "shoal-dev")
	if err != nil {
		return err
	}
	b.memory(ours, "idle: shoal-dev", aimDev, m)
	return nil
}

// memory puts two rows: what is resident, and what of it is no page of a file, which the kernel could drop.
func (b *bench) memory(who column, step, aim string, m usage.Memory) {
	b.report.add(who, step, unitMemory, aim, m.Resident)
	b.report.add(who, step+", of it anonymous", unitMemory, "", m.Anonymous)
}

// startDev starts shoal-dev on a bare host and waits until it can be used.
func (b *bench) startDev(ctx context.Context) (*harness.Lab, error) {
	dir := filepath.Join(b.cfg.Dir, "shoal-dev")
	if err := harness.DownDir(dir, b.cfg.program("shoal-lab")); err != nil {
		return nil, err
	}
	lab, err := harness.Up(ctx, harness.Options{Dir: dir, Managers: 1, NoInit: true, Program: b.cfg.program("shoal-lab"), Log: b.log})
	if err != nil {
		return lab, err
	}
	const start = "shoal-dev > /root/shoal-dev.log 2>&1 &"
	if _, said, code, err := lab.Exec(ctx, "m1", "sh", "-c", start); err != nil || code != 0 {
		return lab, errors.Join(err, fmt.Errorf("start shoal-dev: exit code %d: %s", code, said))
	}
	_, err = poll.Until(ctx, "shoal-dev is ready", healLimit, func(ctx context.Context) string {
		log, _, _, err := lab.Exec(ctx, "m1", "cat", "/root/shoal-dev.log")
		if err == nil && strings.Contains(log, "Ready after") {
			return ""
		}
		return fmt.Sprintf("%v, it has said: %s", err, log)
	})
	return lab, err
}
