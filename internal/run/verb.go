package run

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/shoalproject/shoal/internal/beside"
	"github.com/shoalproject/shoal/internal/config"
)

// Verb is a second thing that a process's program does: it asks or changes something and ends. When the program's first
// argument is the verb, f is called with the process's config and the program ends: with 0, or with 1 when the config can't
// be read or f failed, whose error goes to standard error. Otherwise Verb does nothing. Main functions call it before Main.
//
// Unlike Main it writes no log: what f has to say it writes to out.
func Verb[C any](name, verb string, def C, f func(ctx context.Context, cfg C, env Env, out io.Writer) error) {
	if len(os.Args) < 2 || os.Args[1] != verb {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := invokeVerb(ctx, name, verb, os.Args[2:], os.Stdout, os.Stderr, Machine(name), def, f)
	stop()
	os.Exit(code)
}

// invokeVerb is Verb without the process, for tests.
func invokeVerb[C any](ctx context.Context, name, verb string, args []string, stdout, stderr io.Writer, env Env, def C,
	f func(ctx context.Context, cfg C, env Env, out io.Writer) error,
) int {
	program := "shoal-" + strings.TrimPrefix(name, "shoal-") + " " + verb
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "/etc/shoal/"+name+".yaml", "the process's config `file`")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return exitOK
	} else if err != nil {
		return exitFailed // the flag set has said why
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "%s takes no arguments, got %q\n", program, flags.Args())
		return exitFailed
	}
	cfg, err := config.Load(env.Files, *path, def)
	if err == nil {
		beside.Guard(ctx, func(ctx context.Context) error { return f(ctx, cfg, env, stdout) }, func(e error) { err = e })
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %s\n", program, err)
		return exitFailed
	}
	return exitOK
}
