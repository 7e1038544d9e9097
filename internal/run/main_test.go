package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/errs"
)

type mainConfig struct {
	Greeting string `yaml:"greeting"`
}

func (c mainConfig) Validate() error {
	var faults errs.Collector
	faults.Check(c.Greeting != "", "greeting", "is empty")
	return faults.Err("config")
}

// oneFile is a Files with one file.
type oneFile struct {
	Files
	name, text string
}

func (o oneFile) Read(name string) ([]byte, error) {
	if name != o.name {
		return nil, fs.ErrNotExist
	}
	return []byte(o.text), nil
}

func TestMainFlagsAndExitCodes(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	greet := func(_ context.Context, cfg mainConfig, _ Env) error {
		return fmt.Errorf("greeting was %s", cfg.Greeting)
	}
	fine := func(context.Context, mainConfig, Env) error { return nil }
	untilDone := func(ctx context.Context, _ mainConfig, _ Env) error {
		<-ctx.Done()
		return fmt.Errorf("x: %w", ctx.Err())
	}
	type row struct {
		name string
		ctx  context.Context
		args []string
		file string
		f    func(context.Context, mainConfig, Env) error
		code int
		out  string // in stdout, stderr or log
	}
	for _, r := range []row{
		{name: "clean end", f: fine, code: 0, out: "msg=stopped"},
		{name: "failure", f: greet, code: 1, out: "greeting was hello"},
		{name: "config file", file: "greeting: moin", f: greet, code: 1, out: "greeting was moin"},
		{name: "signal", ctx: cancelled, f: untilDone, code: 0, out: "msg=stopped"},
		{name: "failure after signal", ctx: cancelled, f: greet, code: 1, out: "msg=failed"},
		{name: "panic", f: func(context.Context, mainConfig, Env) error { panic("boom") }, code: 1, out: "main_test.go"},
		{name: "bad config", file: "greeting: ''", f: fine, code: exitMisuse, out: "greeting: is empty"},
		{name: "unknown key", file: "greting: x", f: fine, code: exitMisuse, out: "[1:1]"},
		{name: "no config", args: []string{"-config", "none"}, f: fine, code: exitMisuse, out: "none does not exist"},
		{name: "check", args: []string{"-check"}, f: greet, code: 0, out: "is valid"},
		{name: "check bad", args: []string{"-check"}, file: "greeting: ''", f: greet, code: exitMisuse, out: "is empty"},
		{name: "version", args: []string{"-version", "-config", "none"}, f: greet, code: 0, out: "shoal-x ("},
		{name: "help", args: []string{"-h"}, f: greet, code: 0, out: "-config"},
		{name: "help names the program", args: []string{"-h"}, f: greet, code: 0, out: "Usage of shoal-x:"},
		{name: "help tells verbs", args: []string{"-h"}, f: greet, code: 0, out: "shoal-x reset"},
		{name: "unknown flag", args: []string{"-debug"}, f: greet, code: exitMisuse, out: "-debug"},
		{name: "argument", args: []string{"start"}, f: greet, code: exitMisuse, out: "start"},
	} {
		t.Run(r.name, func(t *testing.T) {
			var out bytes.Buffer
			env := Env{
				Log:   slog.New(slog.NewTextHandler(&out, nil)),
				Files: oneFile{name: "/etc/shoal/shoal-x.yaml", text: r.file},
			}
			ctx := r.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			code := invoke(ctx, "shoal-x", r.args, &out, &out, env, mainConfig{Greeting: "hello"}, r.f, "reset\n    \tremove all")
			if code != r.code || !strings.Contains(out.String(), r.out) {
				t.Errorf("exit code %d, want %d; output %q, want %q in it", code, r.code, out.String(), r.out)
			}
		})
	}
}

func TestContextEndIsAFailureWhenNobodyAsked(t *testing.T) {
	var out bytes.Buffer
	env := Env{Log: slog.New(slog.NewTextHandler(&out, nil))}
	code := live(t.Context(), 0, env, func(context.Context, int, Env) error { return context.DeadlineExceeded })
	if code != exitFailed || errors.Is(t.Context().Err(), context.Canceled) {
		t.Errorf("exit code %d", code)
	}
}

// Go ends a process that crashes, or that a watchdog aborts, with code 2. Units do not start a process again that ends by
// misuse, so that must be told from a crash.
func TestMisuseIsNoCrash(t *testing.T) {
	if exitMisuse == 2 || exitFailed == 2 {
		t.Errorf("misuse is code %d and failure code %d; 2 is how Go's own crashes end", exitMisuse, exitFailed)
	}
}
