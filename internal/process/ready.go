package process

import (
	"context"
	"time"
)

// ready says READY=1 once, when all parts are well for the first time: who starts a unit and waits for it (init, join, an
// upgrade) may then rely on it. What a process waits for until then, and later, is its STATUS, which health tells.
func (p *Process) ready(ctx context.Context) error {
	h := p.Server.Health()
	for {
		changed := h.Changed()
		// A process without any part has not said yet what it needs.
		if ok, _ := h.Serving(); ok && h.Parts() > 0 {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
	p.Env.Log.Info("ready")
	if p.Env.Notify == nil {
		return nil
	}
	p.told.Store(true)
	if err := p.Env.Notify("READY=1"); err != nil {
		p.Env.Log.Warn("init system was not told", "error", err)
	}
	return nil
}

// StorePart is the part of the health that says whether this process follows the store. Follow keeps it.
const StorePart = "store"

// watchPeriod is how often a replica's health is looked at: the end of a stream makes no change that could be waited for.
const watchPeriod = 500 * time.Millisecond

// watchStore keeps the store part of the health as the replica says.
func (p *Process) watchStore(ctx context.Context, view View, health func() error) error {
	h := p.Server.Health()
	for {
		changed := view.Changed()
		err := health()
		why := ""
		if err != nil {
			why = err.Error()
		}
		h.Set(StorePart, err == nil, why)
		if err == nil {
			changed = nil // a revision is no news as long as it follows
		}
		tick := time.NewTimer(watchPeriod)
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
		}
		tick.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}
