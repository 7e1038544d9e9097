// Package app is what all commands share: what a command line takes from outside, the way to the cluster, and the words and
// shapes of arguments, lists, completion and faults.
//
// It owns no command. An App serves one command line, by one goroutine.
package app

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
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/console"
	"github.com/shoalproject/shoal/cli/internal/machine"
	"github.com/shoalproject/shoal/cli/internal/registry"
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
	// Console is the terminal that In and Out are, for commands that need more of it; nil: there is none.
	Console *console.Console
	// Registry asks registries; nil: nobody does.
	Registry Registry
	// Root is put before the paths of init, join and leave; empty but in tests.
	Root string

	// Rehearse, when it is there, makes the command a rehearsal: what it would change is previewed instead, and Rehearse
	// tells what that would lead to. What the command itself prints is not shown.
	Rehearse func(ctx context.Context, cl *client.Client, r *client.Rehearsal) error

	ContextName string   // --context
	Gateway     []string // --gateway
}

// Registry is the person's own side of registries.
type Registry interface {
	// Login is what the person has for one. NotFound: nothing.
	Login(host string) (*typesv1.RegistryLogin, error)
	// Resolve asks what a tag means now.
	Resolve(ctx context.Context, image string) (registry.Image, error)
}

// Real is the person's shell and machine.
func Real() *App {
	env := run.Env{Log: slog.New(slog.DiscardHandler)} // what a person must know comes as an error
	_, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS)
	env = env.OrMachine("shoal")
	return &App{
		Registry: &registry.Client{Files: env.Files, Getenv: os.Getenv},
		Env:      env, Out: os.Stdout, Err: os.Stderr, In: os.Stdin, Terminal: err == nil, Getenv: os.Getenv,
		Programs: system.Machine{}, Host: system.Machine{}, Console: console.Real(),
	}
}

// UsageError is a command line that is wrong in form.
type UsageError struct{ Err error }

func (u *UsageError) Error() string { return u.Err.Error() }
func (u *UsageError) Unwrap() error { return u.Err }

// ExitError is an exit code that is not 1. Without Err there is nothing to say: a command elsewhere has said it.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Group is a command that has verbs.
func Group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use + " COMMAND", Short: short, Args: Usage(KnownVerb),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(verbs...)
	return c
}

// KnownVerb is the argument check of a command that has verbs: an argument is a verb that is not there.
func KnownVerb(c *cobra.Command, args []string) error {
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
		"shoal": {"stack"},
	}[group], verb)
}

// Usage marks what an argument check finds as an error of form.
func Usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &UsageError{Err: err}
		}
		return nil
	}
}

// Exactly asks for a number of arguments in docker's words.
func Exactly(n int) cobra.PositionalArgs { return Between(n, n) }

// AtLeastOne asks for one argument or more.
func AtLeastOne() cobra.PositionalArgs { return Between(1, -1) }

func Between(least, most int) cobra.PositionalArgs {
	return Usage(func(c *cobra.Command, args []string) error {
		switch {
		case len(args) >= least && (most < 0 || len(args) <= most):
			return nil
		case most == 0:
			return fmt.Errorf("%q takes no arguments, got %q", c.CommandPath(), args)
		case least == most:
			return fmt.Errorf("%q requires %s, got %d: %s", c.CommandPath(), Plural(least, "argument"), len(args), c.UseLine())
		case most < 0:
			return fmt.Errorf("%q requires at least %s: %s", c.CommandPath(), Plural(least, "argument"), c.UseLine())
		}
		return fmt.Errorf("%q requires at most %s, got %d: %s", c.CommandPath(), Plural(most, "argument"), len(args), c.UseLine())
	})
}

func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func (a *App) Contexts() (*contexts.Store, error) {
	dir, err := contexts.Dir(a.Getenv)
	if err != nil {
		return nil, err
	}
	return contexts.New(a.Env.Files, dir), nil
}

// Picked is the context of this command line.
func (a *App) Picked() (*contexts.Store, contexts.Context, error) {
	store, err := a.Contexts()
	if err != nil {
		return nil, contexts.Context{}, err
	}
	name := a.ContextName
	if name == "" {
		name = a.Getenv("SHOAL_CONTEXT")
	}
	c, err := store.Pick(name)
	if len(a.Gateway) > 0 {
		c.Gateways = a.Gateway
	}
	return store, c, err
}

// Connect calls f with the cluster of this command line.
func (a *App) Connect(ctx context.Context, f func(c *client.Client) error) error {
	store, c, err := a.Picked()
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
	if a.Rehearse == nil {
		return f(cl)
	}
	out := a.Out
	a.Out = io.Discard
	r := cl.Rehearse()
	err = f(cl)
	a.Out = out
	if err != nil {
		return err
	}
	return a.Rehearse(ctx, cl, r)
}

// Each does something for every argument, tells all that fail, and goes on.
func Each(Names []string, f func(name string) error) error {
	var faults []error
	for _, n := range Names {
		faults = append(faults, f(n))
	}
	return errors.Join(faults...)
}
