package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// A verb reads the process's config, writes what it was asked for, and ends with 0 or 1: health checks know no other code.
func TestVerb(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.yaml")
	env := Machine("test")
	if err := env.Files.Write(file, []byte("name: web\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	type settings struct {
		Name string `yaml:"name"`
	}
	for name, c := range map[string]struct {
		args      []string
		fault     error
		code      int
		out, says string
	}{
		"well":          {args: []string{"-config", file}, out: "web is well\n"},
		"not well":      {args: []string{"-config", file}, fault: errors.New("1 of 2 parts are not well"), code: 1, out: "web is well\n", says: "shoal-x health: 1 of 2 parts are not well\n"},
		"no config":     {args: []string{"-config", file + ".not"}, code: 1, says: "does not exist"},
		"an argument":   {args: []string{"-config", file, "all"}, code: 1, says: `takes no arguments, got ["all"]`},
		"unknown flags": {args: []string{"-all"}, code: 1, says: "-all"},
		"help":          {args: []string{"-h"}, says: "-config"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, said strings.Builder
			code := invokeVerb(t.Context(), "x", "health", c.args, &out, &said, env, settings{},
				func(_ context.Context, cfg settings, _ Env, w io.Writer) error {
					fmt.Fprintf(w, "%s is well\n", cfg.Name)
					return c.fault
				})
			if code != c.code || out.String() != c.out || !strings.Contains(said.String(), c.says) {
				t.Errorf("ended with %d, wanted %d\n%s\n%s", code, c.code, out.String(), said.String())
			}
		})
	}
}
