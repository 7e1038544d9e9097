// Package poll looks again and again until nothing is wrong any more.
//
// It owns the grain of every figure that is taken so. It keeps nothing.
package poll

import (
	"context"
	"fmt"
	"time"
)

// period is how often a poll looks. It is the grain of every figure, and small beside all of them.
const period = 20 * time.Millisecond

// Until looks until f says nothing more that is wrong, and returns how long that took. The error has what it saw last.
func Until(ctx context.Context, what string, within time.Duration, f func(ctx context.Context) (wrong string)) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		wrong := f(ctx)
		if wrong == "" {
			return time.Since(began), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%s: not within %s; last seen: %s: %w", what, within, wrong, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
