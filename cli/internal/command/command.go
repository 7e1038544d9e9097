// Package command is the tree of shoal's commands, one file a group of verbs: flags in, calls to the cluster or the machine,
// output out.
//
// It owns words and shapes alone. Rules are the cluster's, so a fault is told by whoever keeps the rule, and everything that
// a command touches comes in through App, so that tests run all of it. An App serves one command line.
package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/command/data"
	"github.com/shoalproject/shoal/cli/internal/command/inside"
	"github.com/shoalproject/shoal/cli/internal/command/login"
	"github.com/shoalproject/shoal/cli/internal/command/workload"
)

// Run carries out one command line, without the program's name, and returns the exit code: 0, 1 for any error, or that of a
// command elsewhere.
func Run(ctx context.Context, a *app.App, args []string) int {
	root := root(a)
	root.SetArgs(args)
	root.SetContext(ctx)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*app.ExitError](err); ok {
		if exit.Err != nil {
			fmt.Fprintf(a.Err, "shoal: %s\n", strings.TrimSpace(exit.Error()))
		}
		return exit.Code
	}
	fmt.Fprintf(a.Err, "shoal: %s\n", strings.TrimSpace(err.Error()))
	if _, ok := errors.AsType[*app.UsageError](err); ok {
		fmt.Fprintf(a.Err, "See '%s --help'.\n", cmd.CommandPath())
	}
	return 1
}

func root(a *app.App) *cobra.Command {
	root := &cobra.Command{
		Use:           "shoal COMMAND",
		Short:         "Run containers on a group of machines as on one",
		Long:          "shoal says which containers run on a group of machines, and how many; the cluster sees to it that they do.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       run.FullVersion(),
		Args:          app.Usage(app.KnownVerb),
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		Example: `  shoal init --advertise-addr 10.0.0.1
  shoal join --token SHOAL-1-... 10.0.0.1:2377
  shoal service create --name web -p 80 --replicas 3 registry.example/web:1
  shoal service scale web=7`,
	}
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	// Cobra's own would add "shoal [command]" to the line that says so already.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .HasAvailableSubCommands}}\n  {{.CommandPath}} [command]{{end}}", "", 1))
	root.SetVersionTemplate("shoal {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &app.UsageError{Err: err} })
	root.PersistentFlags().StringVar(&a.ContextName, "context", "", "use this `context` instead of the one in use")
	root.PersistentFlags().StringSliceVar(&a.Gateway, "gateway", nil, "talk to these gateways (`host[:port]`) instead of the context's")
	app.Complete(root, "context", a.ContextNames)
	root.AddGroup(&cobra.Group{ID: "machine", Title: "This machine:"}, &cobra.Group{ID: "cluster", Title: "The cluster:"},
		&cobra.Group{ID: "inside", Title: "Running containers:"})
	for _, c := range []*cobra.Command{initCommand(a), joinCommand(a), leaveCommand(a), doctorCommand(a)} {
		c.GroupID = "machine"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{
		joinTokenCommand(a), clusterCommand(a), nodeCommand(a), memberCommand(a), networkCommand(a), data.Secrets(a), data.Configs(a), data.Volumes(a), login.Registries(a), workload.Services(a), workload.Tasks(a),
		planCommand(a), contextCommand(a), versionCommand(a),
	} {
		c.GroupID = "cluster"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{
		inside.Logs(a, "logs [OPTIONS] SERVICE|TASK...", a.TargetNames), inside.Exec(a), inside.Copy(a), inside.Stats(a), topCommand(a),
	} {
		c.GroupID = "inside"
		root.AddCommand(c)
	}
	plainUsage(root)
	return root
}

// plainUsage keeps "[flags]" off the usage lines, which say [OPTIONS] already.
func plainUsage(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	for _, sub := range c.Commands() {
		plainUsage(sub)
	}
}
