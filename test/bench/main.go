// Command bench prints what the main job costs on this machine, beside what others need for the same: the time until 50
// replicas answer beside a bare containerd client, service creates a second, and the time to heal after a container, a
// machine, a machine with its dispatcher, and the leader's machine are lost. PEERS=1 in the environment takes the same
// steps on Docker Swarm. README.md tells what each row means.
//
// It works in laboratories of its own below one folder and removes them at its end, also when it is interrupted; it sends
// nothing to other addresses than theirs. The rows go to standard output, progress to standard error.
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
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := command(ctx, os.Args[1:], os.Getenv("PEERS"), os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// command reads the flags, measures and prints. What was measured before a fault is printed all the same.
func command(ctx context.Context, args []string, peers string, stdout, stderr io.Writer) error {
	cfg := defaultConfig()
	cfg.Peers = peers == "1"
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&cfg.Runs, "runs", cfg.Runs, "how often 1 to 50 is taken, each beside the bare client")
	flags.IntVar(&cfg.FaultRuns, "fault-runs", cfg.FaultRuns, "how often each loss, and each create load, is taken")
	flags.IntVar(&cfg.Replicas, "replicas", cfg.Replicas, "what the service is scaled to")
	flags.StringVar(&cfg.Only, "only", "", "take only the steps whose name matches this `regexp`: scale, create, container, host, dispatcher, leader, idle, one, hundred, hollow, logs")
	flags.IntVar(&cfg.Hollow, "hollow", cfg.Hollow, "how many machines the step hollow plays")
	flags.StringVar(&cfg.Dir, "dir", cfg.Dir, "the `folder` of the laboratories; what an interrupted run left there is removed")
	flags.StringVar(&cfg.Root, "root", cfg.Root, "the `folder` of the repository, whose bin/ has the programs")
	flags.StringVar(&cfg.Figures, "figures", cfg.Figures, "draw charts of what was taken more than once into this `folder`")
	format := flags.String("format", "table", "table or json")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *format != "table" && *format != "json" {
		return fmt.Errorf("-format: %q is neither table nor json", *format)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	r, err := Run(ctx, cfg, log)
	if r == nil {
		return err
	}
	show := r.table
	if *format == "json" {
		show = r.json
	}
	return errors.Join(err, show(stdout), r.draw(cfg.Figures))
}
