package meshproxy

import (
	"context"
	"io"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/doctor"
)

// Doctor is the verb `doctor`: it looks whether the kernel has what the mesh needs, prints what it has found, and returns the
// exit code.
func Doctor(ctx context.Context, env run.Env, args []string, out, said io.Writer) int {
	return finding.Verb(env.Files, "meshproxy", args, out, said, DefaultConfig(), func(Config) []finding.Finding { return doctor.Look(ctx) })
}
