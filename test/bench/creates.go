package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

const (
	createCallers = 32
	createTime    = 3 * time.Second
)

// creates measures how many services a second are accepted, durable and visible, by one caller and by many.
func creates(ctx context.Context, b *bench, o orchestrator) error {
	for range b.cfg.FaultRuns {
		for _, callers := range []int{1, createCallers} {
			if err := b.creates(ctx, o, callers); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) creates(ctx context.Context, o orchestrator, callers int) error {
	prefix := b.name("created")
	var mu sync.Mutex
	var took []time.Duration
	var names []string
	began := time.Now()
	each := make([]int, callers)
	for i := range each {
		each[i] = i
	}
	err := run.Each(ctx, callers, each, func(ctx context.Context, caller int) error {
		for i := 0; time.Since(began) < createTime; i++ {
			name := fmt.Sprintf("%s-%d-%d", prefix, caller, i)
			start := time.Now()
			if err := o.create(ctx, service{name: name}); err != nil {
				return err
			}
			spent := time.Since(start)
			mu.Lock()
			took, names = append(took, spent), append(names, name)
			mu.Unlock()
		}
		return nil
	})
	lasted := time.Since(began)
	if err == nil {
		by := "1 caller"
		if callers > 1 {
			by = fmt.Sprintf("%d callers", callers)
		}
		b.report.add(o.who(), "service creates, "+by, rate, "", float64(len(took))/lasted.Seconds())
		b.report.add(o.who(), "  "+by+", p50", "ms", "", percentile(took, 0.5))
		b.report.add(o.who(), "  "+by+", p99", "ms", "", percentile(took, 0.99))
	}
	// They go also when the measurement failed: the next step wants an empty cluster.
	gone := run.Each(ctx, createCallers, names, o.remove)
	if err != nil {
		return err
	}
	return gone
}
