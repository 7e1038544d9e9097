package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/test/harness"
)

// app is what all verbs share.
type app struct{ dir string }

func newRoot() *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use: "shoal-lab", Short: "Hosts on one machine, for the demo, the tests and the benchmarks",
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.dir = cmp.Or(a.dir, os.Getenv("SHOAL_LAB_DIR"), harness.DefaultDir)
		},
	}
	root.PersistentFlags().StringVar(&a.dir, "dir", "", "the lab's folder (default $SHOAL_LAB_DIR or "+harness.DefaultDir+")")
	root.AddCommand(a.up(), a.down(), a.exec(), a.env(), a.status(), a.hollow())
	root.AddCommand(a.hostVerbs()...)
	root.AddCommand(a.networkVerbs()...)
	root.AddCommand(hidden()...)
	return root
}

func (a *app) open() (*harness.Lab, error) { return harness.Open(a.dir, "", logger()) }

func logger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

func (a *app) up() *cobra.Command {
	opts := harness.Options{}
	command := &cobra.Command{
		Use: "up", Short: "Make a lab and a cluster on it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Dir, opts.Log = a.dir, logger()
			_, err := harness.Up(cmd.Context(), opts)
			return err
		},
	}
	command.Flags().IntVar(&opts.Managers, "managers", 1, "number of managers, named m1, m2, …")
	command.Flags().IntVar(&opts.Workers, "workers", 2, "number of workers, named w1, w2, …")
	command.Flags().BoolVar(&opts.NoInit, "no-init", false, "leave the hosts bare")
	return command
}

func (a *app) down() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove the lab and all that belongs to it", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return harness.DownDir(a.dir, "") },
	}
}

func (a *app) exec() *cobra.Command {
	var env []string
	command := &cobra.Command{
		Use: "exec HOST -- COMMAND [ARG…]", Short: "Run a command on a host", Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			host, argv := args[0], args[1:]
			if argv[0] == "--" {
				argv = argv[1:]
			}
			if len(argv) == 0 {
				return errors.New("exec: no command; write it as exec HOST -- COMMAND")
			}
			lab, err := a.open()
			if err != nil {
				return err
			}
			if term := os.Getenv("TERM"); term != "" {
				env = append(env, "TERM="+term)
			}
			code, err := lab.Enter(host, argv, env)
			if err != nil {
				return err
			}
			if code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
	command.Flags().StringArrayVarP(&env, "env", "e", nil, "NAME=VALUE for the command, more than once if needed")
	// Everything after the host is the command's, also what looks like a flag.
	command.Flags().SetInterspersed(false)
	return command
}

func (a *app) env() *cobra.Command {
	return &cobra.Command{
		Use: "env", Short: "Print shell exports for using the lab: eval \"$(shoal-lab env)\"", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lab, err := a.open()
			if err != nil {
				return err
			}
			variables, err := lab.Env()
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), harness.Export(variables))
			return err
		},
	}
}

func (a *app) status() *cobra.Command {
	var format string
	command := &cobra.Command{
		Use: "status", Short: "Show hosts and processes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "" && format != "json" && format != "table" {
				return fmt.Errorf("unknown format %q: table or json", format)
			}
			lab, err := a.open()
			if err != nil {
				return err
			}
			status, err := lab.Status(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(status)
			}
			return table(cmd.OutOrStdout(), status)
		},
	}
	command.Flags().StringVar(&format, "format", "table", "table or json")
	return command
}

func table(out io.Writer, status harness.Status) error {
	fmt.Fprintln(out, "lab", status.Dir)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "HOST\tROLE\tPOWER\tADDRESSES\tPROCESS\tSTATE\tPID\tRESTARTS\tSINCE")
	for _, host := range status.Hosts {
		left := strings.Join([]string{host.Name, host.Role, host.Power, strings.Join(host.Addresses, " ")}, "\t")
		if len(host.Processes) == 0 {
			fmt.Fprintln(w, left+"\t\t\t\t\t")
		}
		for _, p := range host.Processes {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", left, p.Name, p.State, p.PID, p.Restarts, p.Since.Format(time.TimeOnly))
			left = "\t\t\t"
		}
	}
	return w.Flush()
}
