package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/layout"
	"github.com/shoalproject/shoal/cli/internal/machine"
	"github.com/shoalproject/shoal/cli/internal/table"
	"github.com/shoalproject/shoal/cli/internal/tokenfile"
)

// joined is what `join --format` prints.
type joined struct {
	Machine string
	Roles   []string
}

func joinCommand(a *app.App) *cobra.Command {
	var req machine.Join
	var roles []string
	var tokenFile, format string
	c := &cobra.Command{
		Use: "join (--token TOKEN | --token-file FILE) [OPTIONS] HOST[:PORT]", Short: "Make this machine a part of a cluster", Args: app.Exactly(1),
		Long: "Make this machine a worker or a manager of a cluster: the token decides. `shoal join-token worker|manager` on a\n" +
			"manager prints the whole line. What is in a command line others on this machine can read: --token-file takes the token\n" +
			"from a file that only its owner may read, or from the standard input (-).\n\n" +
			"With --roles it gets these processes alone; a worker's token allows agent and meshproxy, a manager's all. On a machine\n" +
			"that is in the cluster already they are added.\n\n" +
			"A manager that joined has no operator's certificate. Copy the folder ~/.config/shoal of the person who called\n" +
			"`shoal init` to use the cluster from another machine.",
		Example: "  shoal join --token SHOAL-1-... 10.0.0.1:2377\n  shoal join --token-file - 10.0.0.1 <token\n" +
			"  shoal join --roles dispatcher,gateway --token SHOAL-1-... 10.0.0.1",
		RunE: func(c *cobra.Command, args []string) error {
			req.Address = args[0]
			if err := checkJoin(&req, c.Flags().Changed("roles"), roles); err != nil {
				return err
			}
			if c.Flags().Changed("token") && c.Flags().Changed("token-file") {
				return &app.UsageError{Err: errs.New(errs.Invalid, "give --token or --token-file, not both")}
			}
			return join(c.Context(), a, req, tokenFile, format)
		},
	}
	f := c.Flags()
	f.StringVar(&req.Token, "token", "", "the join `token`")
	f.StringVar(&tokenFile, "token-file", "", "the `file` with the join token, mode 0600; - for the standard input")
	f.StringVar(&req.Advertise, "advertise-addr", "", "`address` of this machine that the others dial (default the one on the way to HOST)")
	f.StringVar(&req.Listen, "listen-addr", "", "`address` to bind, when it is another one")
	f.StringSliceVar(&roles, "roles", nil, "the `processes` wanted, with commas: store, ca, scheduler, dispatcher, gateway, meshproxy, agent (default all that the token allows)")
	f.BoolVar(&req.Learner, "learner", false, "its store copies and does not vote, until \"shoal member promote\"")
	f.StringVar(&req.Availability, "availability", "active", "whether a new machine takes tasks: active, pause or drain")
	f.StringVar(&format, "format", "", "print the outcome as json, or by a Go `template`")
	startFlag(c, &req.Start)
	app.Complete(c, "availability", app.Words("active", "pause", "drain"))
	app.Complete(c, "roles", app.Words(roleNames(layout.All())...))
	return c
}

func join(ctx context.Context, a *app.App, req machine.Join, tokenFile, format string) error {
	if tokenFile != "" {
		var err error
		if req.Token, err = tokenfile.Read(a.Env.Files, a.In, tokenFile); err != nil {
			return err
		}
	}
	switch {
	case req.Token != "":
	case machineOf(a).Again(req.Start, req.Roles):
		fmt.Fprintln(a.Err, "This node is already part of a cluster. Nothing was changed.")
		return nil
	case tokenFile != "":
		return tokenfile.Missing(tokenFile)
	default:
		return &app.UsageError{Err: errs.New(errs.Invalid, "--token or --token-file is missing: `shoal join-token worker` on a manager prints the whole line")}
	}
	done, err := machineOf(a).Join(ctx, req)
	if err != nil {
		return err
	}
	if len(done.Roles) == 0 {
		fmt.Fprintln(a.Err, "This machine is in the cluster already. Nothing was changed.")
	} else if req.Start == machine.StartNone {
		tellUnstarted(a, done.Roles)
	}
	if format != "" {
		return table.Inspect(a.Out, oneObject(format), []joined{{Machine: done.Machine, Roles: roleNames(done.Roles)}})
	}
	if len(done.Roles) > 0 {
		fmt.Fprintln(a.Out, joinedText(done, len(req.Roles) > 0))
	}
	return nil
}

func checkJoin(req *machine.Join, named bool, roles []string) error {
	var faults errs.Collector
	parsed, err := layout.ParseRoles(roles)
	faults.Merge("", err)
	req.Roles = parsed
	faults.Check(!named || len(roles) > 0, "roles", "name at least one of %s", layout.Names(layout.All()))
	checkAvailability(&faults, req.Availability)
	checkStart(&faults, req.Start)
	return faults.Err("join")
}

func joinedText(done machine.Joined, named bool) string {
	switch {
	case len(done.Had) > 0:
		return fmt.Sprintf("This node got %s; it had %s.", layout.Names(done.Roles), layout.Names(done.Had))
	case named:
		return fmt.Sprintf("This node joined a cluster with %s.", layout.Names(done.Roles))
	case done.Manager:
		return "This node joined a cluster as a manager."
	}
	return "This node joined a cluster as a worker."
}

func checkAvailability(faults *errs.Collector, text string) {
	v, known := typesv1.Availability_value["AVAILABILITY_"+strings.ToUpper(text)]
	faults.Check(known && v > 0, "availability", "%q is not active, pause or drain", text)
}

func startFlag(c *cobra.Command, start *machine.Start) {
	c.Flags().StringVar((*string)(start), "start", string(machine.StartUnits), "who starts the processes: units (systemd), or none: only the files are written")
	app.Complete(c, "start", app.Words(string(machine.StartUnits), string(machine.StartNone)))
}

func checkStart(faults *errs.Collector, start machine.Start) {
	faults.Check(start == machine.StartUnits || start == machine.StartNone, "start", "%q is not units or none", start)
}

// tellUnstarted says what a person has to start now.
func tellUnstarted(a *app.App, roles []authzv1.Role) {
	fmt.Fprintln(a.Err, "Nothing was started. Start these, in any order, and restart one that ends:")
	for _, r := range roles {
		fmt.Fprintf(a.Err, "    %s -config %s\n", layout.Unit(r), layout.Layout{Root: a.Root}.Config(r))
	}
}

func roleNames(roles []authzv1.Role) []string {
	var out []string
	for _, r := range roles {
		out = append(out, identity.RoleName(r))
	}
	return out
}

// oneObject is the format of a command whose outcome is one object.
func oneObject(format string) string {
	if format == "json" {
		return "{{json .}}"
	}
	return format
}
