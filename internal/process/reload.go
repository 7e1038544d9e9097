package process

import (
	"context"
	"slices"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
)

// live are the keys that a reload puts into force. A change of any other waits for the next start.
func live() []string { return []string{"log_level", "metrics_listen"} }

// reload takes the config and the identity from disk each time somebody asks.
func (p *Process) reload(ctx context.Context) error {
	for {
		select {
		case <-p.Env.Reload.Asked():
			p.reloadOnce(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *Process) reloadOnce(ctx context.Context) {
	// Step 1: the init system waits, and takes no READY for another's. One that waits for the first start's is not told.
	ready := p.told.Load()
	if ready {
		p.notify("RELOADING=1")
		defer p.notify("READY=1")
	}
	// Step 2: the config, all of it or nothing.
	base, changed, err := p.Env.Reload.Read()
	if err != nil {
		p.Env.Log.Error("config not taken, the old one stays in force", "error", err)
	} else {
		p.take(ctx, base, changed)
	}
	// Step 3: the identity, whatever became of the config: a person who has put a certificate there waits for it.
	switch renewed, err := p.Keeper.Reload(); {
	case err != nil:
		p.Env.Log.Error("certificate not taken, the old one stays in force", "error", err)
	case renewed:
		p.Env.Log.Info("certificate taken from disk", "not_after", p.Keeper.Certificate().NotAfter)
	}
}

// take puts into force what can be while the process runs, and names the rest.
func (p *Process) take(ctx context.Context, base config.Base, changed []string) {
	p.level.Set(base.Level())
	select {
	case p.metrics <- base.MetricsListen:
	case <-ctx.Done():
		return
	}
	waits := slices.DeleteFunc(slices.Clone(changed), func(key string) bool { return slices.Contains(live(), key) })
	if len(waits) > 0 {
		p.Env.Log.Warn("config taken, but some keys need a restart", "keys", waits)
		return
	}
	p.Env.Log.Info("config taken", "log_level", base.Level().String(), "metrics_listen", base.MetricsListen)
}

func (p *Process) notify(state string) {
	if p.Env.Notify == nil {
		return
	}
	if err := p.Env.Notify(state); err != nil {
		p.Env.Log.Warn("init system was not told", "error", err)
	}
}

// serveMetrics serves them in clear where the config says, and moves when it says otherwise. An address that can't be had
// ends the process at its start, and is only told after that.
func (p *Process) serveMetrics(ctx context.Context) error {
	address := p.Base.MetricsListen
	for first := true; ctx.Err() == nil; first = false {
		next, err := p.serveMetricsAt(ctx, address)
		if err != nil && first {
			return err
		}
		if err != nil {
			p.Env.Log.Error("metrics not served in clear", "address", address, "error", err)
			if next, err = p.nextMetrics(ctx, address); err != nil {
				return nil
			}
		}
		address = next
	}
	return nil
}

// serveMetricsAt returns the next address, or why there is no serving at this one.
func (p *Process) serveMetricsAt(ctx context.Context, address string) (next string, err error) {
	if address == "" {
		next, _ = p.nextMetrics(ctx, address)
		return next, nil
	}
	g := run.NewGroup(p.Env.Log)
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	g.Go("serve", rpc.ServeMetrics(p.Env, p.Server.Health(), address))
	g.Go("move", func(ctx context.Context) error {
		next, _ = p.nextMetrics(ctx, address)
		cancel()
		return nil
	})
	return next, g.Wait(inner)
}

// nextMetrics waits for another address than this one.
func (p *Process) nextMetrics(ctx context.Context, address string) (string, error) {
	for {
		select {
		case next := <-p.metrics:
			if next != address {
				return next, nil
			}
		case <-ctx.Done():
			return address, ctx.Err()
		}
	}
}
