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
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/machine"
	"github.com/shoalproject/shoal/cli/internal/system"
	"github.com/shoalproject/shoal/internal/contexts"
)

// App is everything that a command line takes from outside.
type App struct {
	// Env has files, network and time.
	Env run.Env
	// Out gets what was asked for, Err all else: progress, warnings, errors.
	Out, Err io.Writer
	// In is where a person answers; nil: nobody does.
	In io.Reader
	// Terminal says that Err is one, so that progress may draw over itself.
	Terminal bool
	// Getenv reads the person's environment.
	Getenv func(string) string
	// Programs and Host are the machine, for init, join and leave.
	Programs machine.Programs
	Host     machine.Host
	// Root is put before the paths of init, join and leave; empty but in tests.
	Root string

	context string   // --context
	gateway []string // --gateway
}

// Real is the person's shell and machine.
func Real() *App {
	env := run.Env{Log: slog.New(slog.DiscardHandler)} // what a person must know comes as an error
	_, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS)
	return &App{
		Env: env.OrMachine("shoal"), Out: os.Stdout, Err: os.Stderr, In: os.Stdin, Terminal: err == nil, Getenv: os.Getenv,
		Programs: system.Machine{}, Host: system.Machine{},
	}
}

// Run carries out one command line, without the program's name, and returns the exit code: 0, or 1 for any error.
func Run(ctx context.Context, app *App, args []string) int {
	root := app.root()
	root.SetArgs(args)
	root.SetContext(ctx)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(app.Err, "shoal: %s\n", strings.TrimSpace(err.Error()))
	if _, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(app.Err, "See '%s --help'.\n", cmd.CommandPath())
	}
	return 1
}

// usageError is a command line that is wrong in form.
type usageError struct{ error }

func (u *usageError) Unwrap() error { return u.error }

func (a *App) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "shoal COMMAND",
		Short:         "Run containers on a group of machines as on one",
		Long:          "shoal says which containers run on a group of machines, and how many; the cluster sees to it that they do.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       run.FullVersion(),
		Args:          usage(knownVerb),
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
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.PersistentFlags().StringVar(&a.context, "context", "", "use this `context` instead of the one in use")
	root.PersistentFlags().StringSliceVar(&a.gateway, "gateway", nil, "talk to these gateways (`host[:port]`) instead of the context's")
	complete(root, "context", a.contextNames)
	root.AddGroup(&cobra.Group{ID: "machine", Title: "This machine:"}, &cobra.Group{ID: "cluster", Title: "The cluster:"})
	for _, c := range []*cobra.Command{a.initCommand(), a.joinCommand(), a.leaveCommand(), a.doctorCommand()} {
		c.GroupID = "machine"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{
		a.joinTokenCommand(), a.nodeCommand(), a.memberCommand(), a.networkCommand(), a.serviceCommand(), a.taskCommand(), a.contextCommand(), a.versionCommand(),
	} {
		c.GroupID = "cluster"
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

// group is a command that has verbs.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use + " COMMAND", Short: short, Args: usage(knownVerb),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(verbs...)
	return c
}

// knownVerb is the argument check of a command that has verbs: an argument is a verb that is not there.
func knownVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if notYet(c.Name(), args[0]) {
		return fmt.Errorf("%q is not there yet", c.CommandPath()+" "+args[0])
	}
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q for %q; did you mean %q?", args[0], c.CommandPath(), strings.Join(near, `" or "`))
	}
	return fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath())
}

// notYet says that Docker has the verb, and a later version will.
func notYet(group, verb string) bool {
	return slices.Contains(map[string][]string{
		"shoal":   {"config", "secret", "stack", "volume", "logs"},
		"service": {"logs"},
	}[group], verb)
}

// usage marks what an argument check finds as an error of form.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}

// exactly asks for a number of arguments in docker's words.
func exactly(n int) cobra.PositionalArgs { return between(n, n) }

// atLeastOne asks for one argument or more.
func atLeastOne() cobra.PositionalArgs { return between(1, -1) }

func between(least, most int) cobra.PositionalArgs {
	return usage(func(c *cobra.Command, args []string) error {
		switch {
		case len(args) >= least && (most < 0 || len(args) <= most):
			return nil
		case most == 0:
			return fmt.Errorf("%q takes no arguments, got %q", c.CommandPath(), args)
		case least == most:
			return fmt.Errorf("%q requires %s, got %d: %s", c.CommandPath(), plural(least, "argument"), len(args), c.UseLine())
		case most < 0:
			return fmt.Errorf("%q requires at least %s: %s", c.CommandPath(), plural(least, "argument"), c.UseLine())
		}
		return fmt.Errorf("%q requires at most %s, got %d: %s", c.CommandPath(), plural(most, "argument"), len(args), c.UseLine())
	})
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func (a *App) contexts() (*contexts.Store, error) {
	dir, err := contexts.Dir(a.Getenv)
	if err != nil {
		return nil, err
	}
	return contexts.New(a.Env.Files, dir), nil
}

// picked is the context of this command line.
func (a *App) picked() (*contexts.Store, contexts.Context, error) {
	store, err := a.contexts()
	if err != nil {
		return nil, contexts.Context{}, err
	}
	name := a.context
	if name == "" {
		name = a.Getenv("SHOAL_CONTEXT")
	}
	c, err := store.Pick(name)
	if len(a.gateway) > 0 {
		c.Gateways = a.gateway
	}
	return store, c, err
}

// connect calls f with the cluster of this command line.
func (a *App) connect(ctx context.Context, f func(c *client.Client) error) error {
	store, c, err := a.picked()
	if err != nil {
		return err
	}
	dir := store.Folder(c.Name)
	if _, err := client.RenewIfOld(ctx, a.Env, c, dir); err != nil && errs.KindOf(err) != errs.NotFound {
		// The present one still serves, or the call below says why not.
		fmt.Fprintf(a.Err, "shoal: warning: the certificate of context %q is old and could not be renewed: %s\n", c.Name, err)
	}
	cl, err := client.Open(a.Env, c, dir)
	if err != nil {
		return err
	}
	defer cl.Close()
	return f(cl)
}

// each does something for every argument, tells all that fail, and goes on.
func each(names []string, f func(name string) error) error {
	var faults []error
	for _, n := range names {
		faults = append(faults, f(n))
	}
	return errors.Join(faults...)
}
