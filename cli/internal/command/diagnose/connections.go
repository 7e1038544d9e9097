package diagnose

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// mostTold is how many connections each machine tells.
const mostTold = 10_000

// connection is a row: connections that have the same of what they are put together by.
type connection struct {
	Service, Task, Node, Client string
	// Ingress is the machine that they came in by.
	Ingress                         string
	Protocol, Dialled, LedTo, State string
	Carrier                         string
	Connections                     int
}

// connectionFlags are those of `top connections`.
type connectionFlags struct {
	format, by, order string
	filters           []string
	most              int
}

// kinds are what connections are put together by, and what stays of them then.
func kinds() map[string]func(c connection) connection {
	return map[string]func(connection) connection{
		"service":    func(c connection) connection { return connection{Service: c.Service} },
		"task":       func(c connection) connection { return connection{Service: c.Service, Task: c.Task, Node: c.Node} },
		"client":     func(c connection) connection { return connection{Service: c.Service, Client: hostOf(c.Client)} },
		"ingress":    func(c connection) connection { return connection{Service: c.Service, Ingress: c.Ingress} },
		"connection": func(c connection) connection { return c },
	}
}

// fields are what can be filtered and sorted by.
func fields() map[string]func(connection) string {
	return map[string]func(connection) string{
		"service": func(c connection) string { return c.Service }, "task": func(c connection) string { return c.Task },
		"node": func(c connection) string { return c.Node }, "client": func(c connection) string { return hostOf(c.Client) },
		"ingress": func(c connection) string { return c.Ingress }, "protocol": func(c connection) string { return c.Protocol },
		"state": func(c connection) string { return c.State }, "carrier": func(c connection) string { return c.Carrier },
	}
}

func hostOf(address string) string {
	if at, err := netip.ParseAddrPort(address); err == nil {
		return at.Addr().String()
	}
	return address
}

// Connections is `shoal top connections`.
func Connections(a *app.App) *cobra.Command {
	var f connectionFlags
	c := &cobra.Command{
		Use: "connections [OPTIONS]", Short: "Show who is connected to which task through the mesh", Args: app.Exactly(0),
		Long: "Show the connections that the machines' meshes have led to tasks: to published ports from outside, and to virtual addresses\n" +
			"from containers. What the kernel leads is what it tracks: a connection that has ended is seen for a while.",
		Example: "  shoal top connections --by client --filter service=web -n 20\n  shoal top connections --by connection --filter state=established",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error { return topConnections(c.Context(), a, cl, f) })
		},
	}
	s := c.Flags()
	s.StringVar(&f.format, "format", "", "`template`: table, table TEMPLATE, json, or a Go template")
	s.StringVar(&f.by, "by", "task", "put together by `what`: service, task, client, ingress, or connection for each one")
	s.StringVar(&f.order, "sort", "connections", "sort by `column`: connections, or what can be filtered by")
	s.StringArrayVarP(&f.filters, "filter", "f", nil, "only those with `key=value`: service, task, node, client, ingress, protocol, state, carrier")
	s.IntVarP(&f.most, "number", "n", 0, "show at most so `many`; 0: all")
	app.Complete(c, "by", app.Words("service", "task", "client", "ingress", "connection"))
	app.Complete(c, "sort", app.Words("connections", "service", "task", "node", "client", "ingress", "protocol", "state", "carrier"))
	return c
}

func (f connectionFlags) check() error {
	var c errs.Collector
	c.Check(kinds()[f.by] != nil, "by", "%q is none of service, task, client, ingress, connection", f.by)
	c.Check(f.order == "connections" || fields()[f.order] != nil, "sort", "there is no column %q to sort by", f.order)
	c.Check(f.most >= 0, "number", "%d is less than none", f.most)
	for _, text := range f.filters {
		key, _, ok := strings.Cut(text, "=")
		c.Check(ok && fields()[key] != nil, "filter", "%q is not key=value with one of service, task, node, client, ingress, protocol, state, carrier", text)
	}
	return c.Err("top connections")
}

func (f connectionFlags) matches(c connection) bool {
	for _, text := range f.filters {
		key, value, _ := strings.Cut(text, "=")
		if fields()[key](c) != value {
			return false
		}
	}
	return true
}

func topConnections(ctx context.Context, a *app.App, cl *client.Client, f connectionFlags) error {
	all, err := nodes(ctx, cl, nil)
	if err != nil {
		return err
	}
	tasks, err := taskNames(ctx, cl)
	if err != nil {
		return err
	}
	hosts := names(all)
	answers := ask(ctx, time.Now, all, func(ctx context.Context, node string) (grpc.ServerStreamingClient[logsv1.ListConnectionsResponse], error) {
		return cl.Network.ListConnections(ctx, &logsv1.ListConnectionsRequest{Node: node, Limit: mostTold})
	})
	var list []connection
	var faults []error
	for _, answer := range answers {
		host := state.Hostname(answer.node)
		if answer.err != nil {
			faults = append(faults, app.Wrap(answer.err, "node %q", host))
		}
		for _, part := range answer.parts {
			if more := int(part.GetTotal()) - mostTold; more > 0 {
				fmt.Fprintf(a.Err, "%s has %d more connections, which are left out\n", host, more)
			}
			for _, c := range part.GetConnections() {
				list = append(list, connection{
					Service: c.GetService(), Task: cmp.Or(tasks[c.GetTaskId()], c.GetTaskId()), Node: cmp.Or(hosts[c.GetNodeId()], c.GetNodeId()),
					Client: c.GetClient(), Ingress: host, Protocol: c.GetProtocol(), Dialled: c.GetDialled(), LedTo: c.GetLedTo(),
					State: c.GetState(), Carrier: c.GetCarrier(), Connections: 1,
				})
			}
		}
	}
	err = table.Write(a.Out, table.List{Format: f.format, Columns: columnsOf(f.by)}, f.rows(list))
	return app.JoinFaults(append(faults, err)...)
}

// rows puts connections together, and sorts and cuts what that gives.
func (f connectionFlags) rows(list []connection) []connection {
	number := map[connection]int{}
	for _, c := range list {
		if f.matches(c) {
			c.Connections = 0
			number[kinds()[f.by](c)]++
		}
	}
	out := make([]connection, 0, len(number))
	for c, n := range number {
		c.Connections = n
		out = append(out, c)
	}
	slices.SortFunc(out, func(x, y connection) int {
		first := cmp.Compare(y.Connections, x.Connections)
		if by := fields()[f.order]; by != nil {
			first = cmp.Compare(by(x), by(y))
		}
		return cmp.Or(first, cmp.Compare(fmt.Sprint(x), fmt.Sprint(y)))
	})
	if f.most > 0 && len(out) > f.most {
		out = out[:f.most]
	}
	return out
}

func columnsOf(by string) []table.Column {
	column := func(names ...string) (out []table.Column) {
		for _, n := range names {
			header := map[string]string{"LedTo": "LED TO"}[n]
			out = append(out, table.Column{Header: cmp.Or(header, strings.ToUpper(n)), Field: n})
		}
		return out
	}
	return column(map[string][]string{
		"service": {"Service", "Connections"}, "task": {"Service", "Task", "Node", "Connections"}, "client": {"Client", "Service", "Connections"},
		"ingress":    {"Ingress", "Service", "Connections"},
		"connection": {"Protocol", "Client", "Dialled", "Ingress", "LedTo", "Task", "Node", "State", "Carrier"},
	}[by]...)
}
