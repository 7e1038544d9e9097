package diagnose

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/progress"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// way is how connections to one port or virtual address go on one machine.
type way struct {
	Node, Dialled, Carrier, Container string
	// AllowFrom is who may call the service. None: anyone.
	AllowFrom []string `json:",omitempty"`
	Steps     []passed
	Ends      []end
}

// passed is an element of a table.
type passed struct {
	Table, Key, Value string
	Missing           bool
}

// end is a task.
type end struct {
	Task, Node, Address string
	Step                *passed
	Connections         uint64
	LeftOut             string
}

// Trace is `shoal network trace`.
func Trace(a *app.App) *cobra.Command {
	var format string
	var from []string
	c := &cobra.Command{
		Use: "trace [OPTIONS] SERVICE", Short: "Show which tables a connection to a service passes, on which machine", Args: app.Exactly(1),
		Long: "Show, for each machine, which elements of which tables lead a connection to a published port or virtual address of the\n" +
			"service to its tasks, as they are in the kernel now, and how many connections each task has by that way. What should be\n" +
			"there and is not is marked. Who may call the service comes first, if not everybody may. It ends with 1 if something is missing.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				ways, err := trace(c.Context(), cl, args[0], from)
				return app.JoinFaults(showWays(a, ways, format), err)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", "", "`template`: json, or a Go template")
	f.StringArrayVar(&from, "from", nil, "only from this `node`; may be repeated")
	app.Complete(c, "from", a.NodeNames)
	return app.Completed(c, a.ServiceNames)
}

func trace(ctx context.Context, cl *client.Client, service string, from []string) ([]way, error) {
	got, err := app.Service(ctx, cl, service)
	if err != nil {
		return nil, err
	}
	all, err := nodes(ctx, cl, nil)
	if err != nil {
		return nil, err
	}
	meant, err := nodes(ctx, cl, from)
	if err != nil {
		return nil, err
	}
	id := got.GetService().GetMeta().GetId()
	tasks, err := taskNames(ctx, cl)
	if err != nil {
		return nil, err
	}
	hosts, callers := names(all), got.GetService().GetSpec().GetEndpoint().GetAllowFrom()
	answers := ask(ctx, time.Now, meant, func(ctx context.Context, node string) (grpc.ServerStreamingClient[logsv1.TraceServiceResponse], error) {
		return cl.Network.TraceService(ctx, &logsv1.TraceServiceRequest{Node: node, Service: id})
	})
	var out []way
	var faults []error
	for _, answer := range answers {
		host := state.Hostname(answer.node)
		if answer.err != nil && !errs.Is(answer.err, errs.NotFound) {
			faults = append(faults, app.Wrap(answer.err, "node %q", host))
		}
		for _, part := range answer.parts {
			for _, w := range part.GetWays() {
				one := way{Node: host, Dialled: w.GetDialled(), Carrier: w.GetCarrier(), Container: containerName(w.GetContainer(), tasks), AllowFrom: callers}
				for _, s := range w.GetSteps() {
					one.Steps = append(one.Steps, *passedOf(s))
				}
				for _, e := range w.GetEnds() {
					one.Ends = append(one.Ends, end{
						Task: cmp.Or(tasks[e.GetTaskId()], e.GetTaskId()), Node: cmp.Or(hosts[e.GetNodeId()], e.GetNodeId()), Address: e.GetAddress(),
						Step: passedOf(e.GetStep()), Connections: e.GetConnections(), LeftOut: e.GetLeftOut(),
					})
				}
				out = append(out, one)
			}
		}
	}
	if len(out) == 0 && len(faults) == 0 {
		faults = append(faults, errs.New(errs.NotFound, "service %q has no published port and no virtual address on these machines", service))
	}
	return out, app.JoinFaults(faults...)
}

func passedOf(s *logsv1.TraceStep) *passed {
	if s == nil {
		return nil
	}
	return &passed{s.GetTable(), s.GetKey(), s.GetValue(), s.GetMissing()}
}

// taskNames are tasks' names by id.
func taskNames(ctx context.Context, cl *client.Client) (map[string]string, error) {
	tasks, err := progress.All(ctx, cl.Tasks)
	if err != nil {
		return nil, app.Wrap(err, "list tasks")
	}
	out := map[string]string{}
	for _, t := range tasks {
		out[t.GetTask().GetMeta().GetId()] = t.GetName()
	}
	return out, nil
}

// containerName is the name of the task whose container it is; a container's id begins with its task's.
func containerName(id string, tasks map[string]string) string {
	for i := range id {
		if id[i] == '.' {
			return cmp.Or(tasks[id[:i]], id)
		}
	}
	return id
}

// showWays writes them, and is an error if something is missing in a kernel.
func showWays(a *app.App, ways []way, format string) error {
	missing := 0
	for _, w := range ways {
		for _, s := range w.Steps {
			missing += count(&s)
		}
		for _, e := range w.Ends {
			missing += count(e.Step)
		}
	}
	if format != "" {
		if err := table.Write(a.Out, table.List{Format: format, Columns: []table.Column{
			{Header: "NODE", Field: "Node"}, {Header: "DIALLED", Field: "Dialled"}, {Header: "CARRIER", Field: "Carrier"}, {Header: "CONTAINER", Field: "Container"},
		}}, ways); err != nil {
			return err
		}
	} else {
		last := ""
		for i, w := range ways {
			if i == 0 && len(w.AllowFrom) > 0 {
				fmt.Fprintf(a.Out, "only %s may call it, and its own tasks\n", strings.Join(w.AllowFrom, ", "))
			}
			if w.Node != last {
				fmt.Fprintln(a.Out, w.Node)
				last = w.Node
			}
			w.write(a.Out)
		}
	}
	if missing > 0 {
		return errs.New(errs.Precondition, "%s missing in a kernel: somebody else has changed it, and shoal-meshproxy puts it back within a second",
			app.Plural(missing, "element"))
	}
	return nil
}

func count(s *passed) int {
	if s != nil && s.Missing {
		return 1
	}
	return 0
}

func (w way) write(out io.Writer) {
	from := ""
	if w.Container != "" {
		from = " from " + w.Container
	}
	by := map[string]string{"kernel": "the kernel leads it", "userspace": "shoal-meshproxy carries it", "refused": "refused"}[w.Carrier]
	fmt.Fprintf(out, "  %s%s: %s\n", w.Dialled, from, cmp.Or(by, w.Carrier))
	for _, s := range w.Steps {
		fmt.Fprintf(out, "    %s\n", s.text())
	}
	for _, e := range w.Ends {
		if e.LeftOut != "" {
			fmt.Fprintf(out, "    x %-20s on %-12s %s: no new connections: %s\n", e.Task, e.Node, e.Address, e.LeftOut)
			continue
		}
		fmt.Fprintf(out, "    > %-20s on %-12s %s: %s\n", e.Task, e.Node, e.Address, app.Plural(int(e.Connections), "connection"))
		if e.Step != nil {
			fmt.Fprintf(out, "      by %s\n", e.Step.text())
		}
	}
}

func (s passed) text() string {
	out := fmt.Sprintf("%s: %s → %s", s.Table, s.Key, s.Value)
	if s.Missing {
		out += "   MISSING in the kernel"
	}
	return out
}
