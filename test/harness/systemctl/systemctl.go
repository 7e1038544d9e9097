// Package systemctl is the small part of systemctl(1) that a lab host has, with systemd's words and exit codes. It
// asks the host's init over its socket and keeps nothing itself.
package systemctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/shoalproject/shoal/test/harness/hostinit"
)

// Exit codes of systemctl(1).
const (
	exitFailed   = 1
	exitUsage    = 2
	exitInactive = 3
	exitUnknown  = 4
	exitNoUnit   = 5
)

// Init is what systemctl needs of the host's init.
type Init interface {
	Units(ctx context.Context) ([]hostinit.Unit, error)
	Do(ctx context.Context, verb, unit string) error
}

type command struct {
	init     Init
	out, err io.Writer
	quiet    bool
	now      bool
}

// Run carries out one command line (without the program's name) and returns the exit code.
func Run(ctx context.Context, init Init, args []string, out, errOut io.Writer) int {
	c := command{init: init, out: out, err: errOut}
	var words []string
	for _, arg := range args {
		switch arg {
		case "-q", "--quiet":
			c.quiet = true
		case "--now":
			c.now = true
		case "--system", "--no-pager", "--no-ask-password", "-l", "--full":
		default:
			if strings.HasPrefix(arg, "-") {
				return c.usage("unrecognized option '" + arg + "'")
			}
			words = append(words, arg)
		}
	}
	if len(words) == 0 {
		words = []string{"list-units"}
	}
	verb, units := words[0], words[1:]
	for i, unit := range units {
		units[i] = strings.TrimSuffix(unit, ".service")
	}
	return c.run(ctx, verb, units)
}

func (c command) run(ctx context.Context, verb string, units []string) int {
	switch verb {
	case "daemon-reload", "reset-failed":
		return 0 // units are built in here: there is nothing to read again
	case "list-units", "list-unit-files":
		return c.list(ctx)
	case "is-system-running":
		fmt.Fprintln(c.out, "running")
		return 0
	}
	if len(units) == 0 {
		return c.usage("too few arguments")
	}
	switch verb {
	case "enable", "disable":
		return c.enable(ctx, verb, units)
	case "start", "stop", "restart":
		return c.each(ctx, verb, units)
	case "is-active", "is-enabled":
		return c.ask(ctx, verb, units)
	}
	return c.usage("unknown command verb '" + verb + "'; a lab host knows enable, disable, start, stop, restart, " +
		"is-active, is-enabled, list-units, reset-failed and daemon-reload")
}

func (c command) usage(why string) int {
	fmt.Fprintln(c.err, "systemctl: "+why)
	return exitUsage
}

func (c command) enable(ctx context.Context, verb string, units []string) int {
	if code := c.each(ctx, verb, units); code != 0 || !c.now {
		return code
	}
	if verb == "enable" {
		return c.each(ctx, "start", units)
	}
	return c.each(ctx, "stop", units)
}

// each does every unit, also after one has failed, and returns the first failure's code.
func (c command) each(ctx context.Context, verb string, units []string) int {
	code := 0
	for _, unit := range units {
		err := c.init.Do(ctx, verb, unit)
		if err == nil {
			continue
		}
		fmt.Fprintf(c.err, "systemctl: %s %s: %v\n", verb, unit, err)
		if code == 0 {
			code = exitFailed
			if errors.Is(err, hostinit.ErrUnknownUnit) {
				code = exitNoUnit
			}
		}
	}
	return code
}

// ask prints a line for each unit. As with systemd, is-active succeeds if any of them is active.
func (c command) ask(ctx context.Context, verb string, units []string) int {
	all, err := c.init.Units(ctx)
	if err != nil {
		fmt.Fprintln(c.err, "systemctl:", err)
		return exitFailed
	}
	known := map[string]hostinit.Unit{}
	for _, unit := range all {
		known[unit.Name] = unit
	}
	code := exitFailed
	if verb == "is-active" {
		code = exitInactive
	}
	worst := code
	for _, name := range units {
		unit, ok := known[name]
		answer, good := "disabled", unit.Enabled
		if unit.Enabled {
			answer = "enabled"
		}
		if verb == "is-active" {
			answer, good = string(unit.State), unit.State == hostinit.Active
		}
		if !ok {
			answer, good, worst = "not-found", false, exitUnknown
			if verb == "is-active" {
				answer = "inactive"
			}
		}
		if good {
			code = 0
		}
		if !c.quiet {
			fmt.Fprintln(c.out, answer)
		}
	}
	if code != 0 {
		return worst
	}
	return code
}

func (c command) list(ctx context.Context) int {
	all, err := c.init.Units(ctx)
	if err != nil {
		fmt.Fprintln(c.err, "systemctl:", err)
		return exitFailed
	}
	for _, unit := range all {
		enabled := "disabled"
		if unit.Enabled {
			enabled = "enabled"
		}
		fmt.Fprintf(c.out, "%-28s %-12s %-8s pid %d\n", unit.Name+".service", unit.State, enabled, unit.PID)
	}
	return 0
}
