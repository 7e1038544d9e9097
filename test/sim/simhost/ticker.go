package simhost

import (
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

// tickers are those of one process.
type tickers struct {
	mu   sync.Mutex // guards all below and every ticker's fields
	held bool
	dead bool
	all  map[*ticker]struct{}
}

// ticker ticks by a chain of timers, so that it needs no goroutine. Missed ticks are not queued, as in package time.
type ticker struct {
	of     *tickers
	every  time.Duration
	c      chan time.Time // holds one
	timer  *time.Timer
	missed bool // a tick fell into a pause
}

func newTickers(held bool) *tickers { return &tickers{held: held, all: map[*ticker]struct{}{}} }

// start is env.Ticker. Of a dead process it never ticks.
func (ts *tickers) start(d time.Duration) run.Ticker {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := &ticker{of: ts, every: max(d, 1), c: make(chan time.Time, 1)}
	if !ts.dead {
		ts.all[t] = struct{}{}
		t.timer = time.AfterFunc(t.every, t.fire)
	}
	return t
}

func (t *ticker) fire() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if _, alive := t.of.all[t]; !alive {
		return
	}
	t.timer.Reset(t.every)
	if t.of.held {
		t.missed = true
		return
	}
	t.tick()
}

// tick needs the lock; it never blocks.
func (t *ticker) tick() {
	select {
	case t.c <- time.Now():
	default:
	}
}

// hold begins or ends a pause.
func (ts *tickers) hold(held bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.held = held
	for t := range ts.all {
		if !held && t.missed {
			t.missed = false
			t.tick()
		}
	}
}

// stop ends all tickers for good.
func (ts *tickers) stop() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.dead = true
	for t := range ts.all {
		t.timer.Stop()
	}
	clear(ts.all)
}

// C is the channel of ticks.
func (t *ticker) C() <-chan time.Time { return t.c }

// Stop ends this ticker.
func (t *ticker) Stop() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if _, alive := t.of.all[t]; alive {
		t.timer.Stop()
		delete(t.of.all, t)
	}
}
