// Command shoal-store remembers and admits: it keeps the cluster's state in a Raft group with the other stores, and serves
// the control API on it.
package main

import (
	"context"

	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/store"
)

func main() {
	process.Main("store", store.DefaultConfig(), func(ctx context.Context, cfg store.Config, env run.Env) error {
		return store.Run(ctx, cfg, store.Env{Env: env})
	})
}
