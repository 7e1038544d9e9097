package agent

import (
	"context"
	"io"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/doctor"
)

// Doctor is the verb `doctor`: it looks whether this machine can run containers, prints what it has found, and returns the
// exit code.
func Doctor(ctx context.Context, env run.Env, args []string, out, said io.Writer) int {
	return finding.Verb(env.Files, "agent", args, out, said, DefaultConfig(), func(cfg Config) []finding.Finding {
		volumes, _ := cfg.volumes()
		return doctor.Machine{
			Volumes: volumes, IDs: doctor.IDs{First: cfg.UserIDs, Ranges: cfg.UserRanges},
			Socket: cfg.Socket, Namespace: cfg.Namespace, RunDir: cfg.RunDir, Snapshotter: cfg.Snapshotter, Data: cfg.Folder("agent"), ImagesHigh: int64(cfg.ImagesHigh), Now: env.Now(),
		}.Look(ctx)
	})
}
