package process

import (
	"context"
	"fmt"
	"io"
	"path"

	"github.com/shoalproject/shoal/internal/health"
	"github.com/shoalproject/shoal/internal/run"
)

// Main is the whole of a process's main function: run.Main, and the verb health, which asks the process that runs with the
// same config how it is.
func Main[C interface{ Folder(process string) string }](name string, def C,
	f func(ctx context.Context, cfg C, env run.Env) error, verbs ...string,
) {
	run.Verb(name, "health", def, func(ctx context.Context, cfg C, env run.Env, out io.Writer) error {
		return tellHealth(ctx, env, path.Join(cfg.Folder(name), health.SocketFile), out)
	})
	run.Main(name, def, f, append(verbs, "health [-config file]\n    \tsay how the running process is, part by part; ends with 1 unless all are well")...)
}

// tellHealth writes a line a part.
func tellHealth(ctx context.Context, env run.Env, socket string, out io.Writer) error {
	parts, err := health.Ask(ctx, env, socket)
	for _, p := range parts {
		said := "well"
		if !p.Well {
			said = "waits: " + p.Why
		}
		fmt.Fprintf(out, "%s: %s\n", p.Name, said)
	}
	return err
}
