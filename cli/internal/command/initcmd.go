package command

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/contexts"
	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/machine"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func machineOf(a *app.App) *machine.Machine {
	var mu sync.Mutex // guards Err: units that start side by side are told as they become ready
	return &machine.Machine{
		Env: a.Env, Programs: a.Programs, Host: a.Host, Root: a.Root,
		Tell: func(text string) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintln(a.Err, text)
		},
	}
}

func initCommand(a *app.App) *cobra.Command {
	var req machine.Init
	var format string
	c := &cobra.Command{
		Use: "init [OPTIONS]", Short: "Begin a cluster on this machine", Args: app.Exactly(0),
		Long: "Begin a cluster on this machine, which becomes its first manager: keys and certificates, configuration files in\n" +
			"/etc/shoal, the processes as systemd units, and a context for the person who calls it. If any step fails, everything\n" +
			"is taken back.",
		Example: "  shoal init --advertise-addr 10.0.0.1",
		RunE: func(c *cobra.Command, _ []string) error {
			store, err := a.Contexts()
			if err != nil {
				return err
			}
			req.Contexts = store
			req.Connect = func(ctx contexts.Context) (machine.Gateway, error) {
				cl, err := client.Open(a.Env, ctx, store.Folder(ctx.Name))
				return &gateway{app: a, client: cl}, err
			}
			if err := checkInit(&req, person(a)); err != nil {
				return err
			}
			done, err := machineOf(a).Init(c.Context(), req)
			if err != nil {
				return err
			}
			if format != "" {
				return table.Inspect(a.Out, oneObject(format), []initialized{{
					Machine: done.Machine, Context: done.Context, Roles: roleNames(done.Roles), WorkerToken: done.Token, Address: done.Address,
				}})
			}
			if done.Already {
				fmt.Fprintln(a.Err, "This machine is in a cluster already. Nothing was changed.")
				return nil
			}
			fmt.Fprintf(a.Out, "Cluster initialized: current node (%s) is now a manager.\n\n", done.Machine)
			if req.Start == machine.StartNone { // somebody's log has this output for ever: it has no token
				tellUnstarted(a, done.Roles)
				fmt.Fprint(a.Out, "To add a machine to this cluster, run 'shoal join-token worker' or 'shoal join-token manager'\n"+
					"once the processes run, and follow the instructions.\n")
				return nil
			}
			fmt.Fprintf(a.Out, "To add a worker to this cluster, run the following command:\n\n    shoal join --token %s %s\n\n"+
				"To add a manager to this cluster, run 'shoal join-token manager' and follow the instructions.\n", done.Token, done.Address)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&req.Advertise, "advertise-addr", "", "`address` of this machine that the others dial; may be left out when there is one alone")
	f.StringVar(&req.Listen, "listen-addr", "", "`address` to bind, when it is another one")
	f.StringVar(&req.Operator, "name", "", "your `name` in the operator's certificate (default the login name)")
	f.StringVar(&req.Availability, "availability", "active", "whether this machine takes tasks: active, pause or drain")
	f.IntVar(&req.DataPathPort, "data-path-port", 0, "UDP `port` of the networks between machines (default 8477)")
	startFlag(c, &req.Start)
	f.StringVar(&format, "format", "", "print the outcome as json, or by a Go `template`; the token is in it")
	app.Complete(c, "availability", app.Words("active", "pause", "drain"))
	return c
}

// initialized is what `init --format` prints.
type initialized struct {
	Machine, Context     string
	Roles                []string
	WorkerToken, Address string
}

func checkInit(req *machine.Init, person string) error {
	var faults errs.Collector
	if req.Operator == "" {
		req.Operator = person
	}
	checkAvailability(&faults, req.Availability)
	checkStart(&faults, req.Start)
	faults.Check(req.Start != machine.StartNone || req.Availability == "active", "availability",
		"nobody can set it before the processes run; use `shoal node update --availability` then")
	faults.Check(req.DataPathPort == 0 || req.DataPathPort >= 1024 && req.DataPathPort <= 49151, "data-path-port", "%d is not 1024 to 49151", req.DataPathPort)
	return faults.Err("init")
}

// person is the login name as a certificate may have it.
func person(a *app.App) string {
	name := a.Getenv("SUDO_USER")
	if name == "" {
		name = a.Getenv("USER")
	}
	name = strings.Map(func(r rune) rune {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("-._@", r) {
			return -1
		}
		return r
	}, strings.ToLower(name))
	if name == "" || strings.Trim(name, ".") == "" || len(name) > 63 {
		return "admin"
	}
	return name
}

// gateway is the new cluster as machine.Init sees it.
type gateway struct {
	app    *app.App
	client *client.Client
}

func (g *gateway) Ready(ctx context.Context, id string) (bool, string, error) {
	got, err := g.client.Nodes.GetNode(ctx, &controlv1.GetNodeRequest{Node: id})
	if err != nil {
		return false, "", err
	}
	status := got.GetNode().GetNode().GetStatus()
	if status.GetState() == typesv1.NodeState_NODE_STATE_READY {
		return true, "", nil
	}
	if status.GetMessage() != "" {
		return false, status.GetMessage(), nil
	}
	return false, "its agent has no session yet", nil
}

func (g *gateway) WorkerToken(ctx context.Context) (string, error) {
	got, err := g.client.Tokens.GetJoinToken(ctx, &cav1.GetJoinTokenRequest{Role: typesv1.NodeRole_NODE_ROLE_WORKER})
	return got.GetToken(), err
}

func (g *gateway) SetAvailability(ctx context.Context, id, availability string) error {
	change := spec.NodeChange{Name: id, Availability: availability}
	return updateNode(ctx, g.app, g.client, id, change.Apply)
}

func (g *gateway) Close() error { return g.client.Close() }
