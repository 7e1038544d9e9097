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
	"time"

	"github.com/shoalproject/shoal/internal/beside"
	"github.com/shoalproject/shoal/internal/config"
)

// Exit codes of every process. Misuse does not get better by being restarted, so units set RestartPreventExitStatus=78. It is
// not 2, by which Go itself ends a process that crashes, or that a watchdog aborts: those must be started again.
const (
	exitOK     = 0
	exitFailed = 1
	exitMisuse = 78 // bad flags or bad config; EX_CONFIG of sysexits.h
)

// Main is the whole of a process's main function: flags, config, signals, log and exit code around f.
//
//	func main() { run.Main("ca", ca.DefaultConfig(), ca.Run) }
//
// Flags are -config (default /etc/shoal/<name>.yaml), -check (validate it and exit) and -version. SIGTERM and SIGINT end
// f's context; a second one ends the process. SIGHUP asks f, by env.Reload, to read the config again; where there is nothing
// to read it does nothing. Exit codes: 0 for a clean end, 1 when f failed, 78 for bad flags or config. Verbs are lines of help about what the program does when its first argument is not a
// flag; its main function looks for those.
func Main[C any](name string, def C, f func(ctx context.Context, cfg C, env Env) error, verbs ...string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // from the first signal on the second has its default effect
	env := Machine(name)
	env.Reload = &Reload{asked: hangups(ctx)}
	os.Exit(invoke(ctx, name, os.Args[1:], os.Stdout, os.Stderr, env, def, f, verbs...))
}

// invoke is Main without the process, for tests.
func invoke[C any](ctx context.Context, name string, args []string, stdout, stderr io.Writer, env Env, def C,
	f func(ctx context.Context, cfg C, env Env) error, verbs ...string,
) int {
	program := "shoal-" + strings.TrimPrefix(name, "shoal-")
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "Usage of %s:\n", program)
		flags.PrintDefaults()
		for _, v := range verbs {
			fmt.Fprintf(stderr, "  %s %s\n", program, v)
		}
	}
	path := flags.String("config", "/etc/shoal/"+name+".yaml", "the process's config `file`")
	check := flags.Bool("check", false, "check the config file and exit")
	show := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return exitOK
	} else if err != nil {
		return exitMisuse // the flag set has said why
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "%s takes no arguments, got %q; its settings are in the config file\n", name, flags.Args())
		return exitMisuse
	}
	if *show {
		fmt.Fprintln(stdout, program, FullVersion())
		return exitOK
	}
	cfg, err := config.Load(env.Files, *path, def)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitMisuse
	}
	if *check {
		fmt.Fprintf(stdout, "%s is valid\n", *path)
		return exitOK
	}
	env.Reload = NewReload(env.Reload.Asked(), cfg, func() (C, error) { return config.Load(env.Files, *path, def) })
	begun := time.Now()
	code := live(ctx, cfg, env, f)
	if base, ok := config.BaseOf(cfg); ok && env.Supervised {
		patience{env: env, file: base.Folder(strings.TrimPrefix(name, "shoal-"))}.end(ctx, code, time.Since(begun))
	}
	return code
}

func live[C any](ctx context.Context, cfg C, env Env, f func(ctx context.Context, cfg C, env Env) error) int {
	settled, stop := context.WithCancel(ctx)
	defer stop()
	Settle(settled)
	_, hash, _ := build()
	env.Log.Info("starting", "version", Version(), "commit", hash, "host", env.Host)
	defer context.AfterFunc(ctx, func() { env.tell("STOPPING=1\nSTATUS=stopping") })()
	var err error
	beside.Guard(ctx, func(ctx context.Context) error { return f(ctx, cfg, env) }, func(e error) { err = e })
	if err == nil || (ctx.Err() != nil && isContextEnd(err)) {
		env.Log.Info("stopped")
		return exitOK
	}
	if p, ok := errors.AsType[*PanicError](err); ok {
		env.Log.Error("failed", "error", err, "stack", string(p.Stack))
	} else {
		env.Log.Error("failed", "error", err)
	}
	return exitFailed
}
