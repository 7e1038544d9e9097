// Command net prints what the network costs on this machine, all of it in one run: requests through the mesh beside asking the
// container directly, virtual addresses beside addresses, the mesh in user space beside HAProxy and nginx, and how soon a task
// that runs is reached by every machine. README.md in the folder above tells what each row means.
//
// It owns a laboratory below one folder, which it removes at its end, also when it is interrupted, and must never send anything to
// other addresses than its. Sides take turns, and each round begins with another: what makes the machine slow must hit all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

// config is what a run measures.
type config struct {
	dir, root, figures string
	only               *regexp.Regexp
	rounds             int
	each               time.Duration // of one load
	workers, tasks     int
	services           int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "net:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var cfg config
	flags := flag.NewFlagSet("net", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.dir, "dir", "/var/tmp/shoal-bench-net", "the `folder` of the laboratory")
	flags.StringVar(&cfg.root, "root", "..", "the `folder` of the repository, whose bin/ has the programs")
	flags.StringVar(&cfg.figures, "figures", "", "draw charts into this `folder`")
	only := flags.String("only", "", "take only the steps whose name matches this `regexp`: mesh, vip, proxies, hop, appear, large")
	flags.IntVar(&cfg.rounds, "rounds", 7, "how often each side is asked")
	flags.DurationVar(&cfg.each, "each", 2*time.Second, "how long each side is asked, each time")
	flags.IntVar(&cfg.workers, "workers", 2, "how many machines beside the manager")
	flags.IntVar(&cfg.tasks, "tasks", 10, "how many tasks come to all machines")
	flags.IntVar(&cfg.services, "services", 5000, "how many services a meshproxy starts with")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if cfg.only, err = regexp.Compile(*only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if cfg.workers < 2 {
		return errors.New("-workers: at least 2, one with the task and one with its client")
	}
	return bench(ctx, cfg, stdout, slog.New(slog.NewTextHandler(stderr, nil)))
}

// bench takes the steps. What was measured before a fault is printed all the same.
func bench(ctx context.Context, cfg config, stdout io.Writer, log *slog.Logger) (err error) {
	root, err := filepath.Abs(cfg.root)
	if err != nil {
		return err
	}
	lab, err := harness.Up(ctx, harness.Options{Dir: cfg.dir, Managers: 1, Workers: cfg.workers, Program: filepath.Join(root, "bin", "shoal-lab"), Log: log})
	if lab != nil {
		defer func() { err = errors.Join(err, lab.Down()) }()
	}
	if err != nil {
		return err
	}
	s := &site{Lab: lab, cfg: cfg, log: log, r: newReport()}
	defer func() { err = errors.Join(err, s.r.print(stdout), s.r.draw(cfg.figures)) }()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		take func(context.Context) error
	}{{"mesh", s.mesh}, {"vip", s.vip}, {"proxies", s.proxies}, {"hop", s.hop}, {"appear", s.appear}, {"large", s.large}} {
		if !cfg.only.MatchString(step.name) {
			continue
		}
		log.Info("step", "name", step.name)
		if err := step.take(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}
