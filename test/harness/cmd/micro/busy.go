package main

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// beat is the time of which BUSY_MS names the busy part.
const beat = 100 * time.Millisecond

func busyTime(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	ms, err := strconv.Atoi(text)
	busy := time.Duration(ms) * time.Millisecond
	if err != nil || busy < 0 || busy > beat {
		return 0, fmt.Errorf("BUSY_MS is %q; it must be a number of milliseconds, from 0 to %d", text, beat.Milliseconds())
	}
	return busy, nil
}

// spin keeps a processor busy for a part of each beat.
func spin(ctx context.Context, busy time.Duration) error {
	if busy == 0 {
		return nil
	}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	turns := 0
	for {
		for begun := time.Now(); time.Since(begun) < busy; {
			turns++
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
