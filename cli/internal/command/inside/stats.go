package inside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// statsPeriod is the time between two readings.
const statsPeriod = time.Second

// statsRow has Docker's names.
type statsRow struct {
	ID, Name, Node     string
	CPUPerc            string
	MemUsage, MemPerc  string
	NetIO, BlockIO     string
	PIDs               string
	Container, Service string
}

// Stats is `shoal stats`.
func Stats(a *app.App) *cobra.Command {
	var l app.Listing
	var noStream bool
	c := &cobra.Command{
		Use: "stats [OPTIONS] [SERVICE|TASK...]", Short: "Show what running tasks use: processor, memory, network, disk",
		Long:    "Show what running tasks use; without arguments, all of the cluster. Filters: name, service, node.",
		Example: "  shoal stats\n  shoal stats --no-stream --format '{{.Name}} {{.MemUsage}}' web",
		RunE: func(c *cobra.Command, args []string) error {
			filters, err := l.Checked()
			if err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				return showStats(c.Context(), a, cl, &l, filters, &logsv1.StatsRequest{Targets: args}, noStream)
			})
		},
	}
	l.Flags(c, "ids")
	c.Flags().BoolVar(&noStream, "no-stream", false, "show one reading, and end")
	return app.Completed(c, a.TargetNames)
}

func showStats(ctx context.Context, a *app.App, cl *client.Client, l *app.Listing, filters []string, req *logsv1.StatsRequest, once bool) error {
	req.Period = durationpb.New(statsPeriod)
	if once {
		req.Readings = 2 // a share of processors is between two
	}
	stream, err := cl.Stats.Stats(ctx, req)
	if err != nil {
		return app.Wrap(err, "stats")
	}
	s := &screen{app: a, listing: l, rows: map[string]*logsv1.StatsResponse{}}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) || err != nil && ctx.Err() != nil { // Ctrl-C ends the watching, and is no fault
			if once {
				return s.print()
			}
			return nil
		}
		if err != nil {
			return app.Wrap(err, "stats")
		}
		if !matches(r.GetTask(), filters) {
			continue
		}
		s.take(r)
		if !once {
			if err := s.refresh(); err != nil {
				return err
			}
		}
	}
}

func matches(t *logsv1.Place, filters []string) bool {
	for _, f := range filters {
		key, value, _ := strings.Cut(f, "=")
		service, _, _ := strings.Cut(t.GetName(), ".")
		ok := false
		switch key {
		case "name":
			ok = strings.HasPrefix(t.GetName(), value)
		case "service":
			ok = value == service || value == t.GetServiceId()
		case "node":
			ok = value == t.GetHostname() || value == t.GetNodeId()
		}
		if !ok {
			return false
		}
	}
	return true
}

// screen is the table that is drawn over itself.
type screen struct {
	app     *app.App
	listing *app.Listing
	rows    map[string]*logsv1.StatsResponse
	drawn   time.Time
}

func (s *screen) take(r *logsv1.StatsResponse) {
	id := r.GetTask().GetTaskId()
	switch {
	case r.GetMissing() != "":
		fmt.Fprintf(s.app.Err, "shoal: %s%s can't be read: %s\n", r.GetTask().GetName(), on(r.GetTask()), r.GetMissing())
	case r.GetEnded():
		delete(s.rows, id)
	default:
		s.rows[id] = r
	}
}

// refresh draws once a period: each task's reading comes by itself.
func (s *screen) refresh() error {
	now := s.app.Env.Now()
	if now.Sub(s.drawn) < statsPeriod {
		return nil
	}
	s.drawn = now
	if s.app.Console != nil && s.app.Console.OutputIsTerminal() {
		fmt.Fprint(s.app.Out, "\x1b[H\x1b[2J")
	}
	return s.print()
}

func (s *screen) print() error {
	list := make([]*logsv1.StatsResponse, 0, len(s.rows))
	for _, r := range s.rows {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *logsv1.StatsResponse) int {
		return cmp.Or(cmp.Compare(a.GetTask().GetName(), b.GetTask().GetName()), cmp.Compare(a.GetTask().GetTaskId(), b.GetTask().GetTaskId()))
	})
	rows := make([]statsRow, len(list))
	for i, r := range list {
		rows[i] = rowOf(r, s.listing.Whole())
	}
	columns := []table.Column{
		{Header: "TASK ID", Field: "ID"}, {Header: "NAME", Field: "Name"}, {Header: "NODE", Field: "Node"}, {Header: "CPU %", Field: "CPUPerc"},
		{Header: "MEM USAGE / LIMIT", Field: "MemUsage"}, {Header: "MEM %", Field: "MemPerc"}, {Header: "NET I/O", Field: "NetIO"},
		{Header: "BLOCK I/O", Field: "BlockIO"}, {Header: "PIDS", Field: "PIDs"},
	}
	return app.PrintRows(s.app, s.listing, columns, rows, func(r statsRow) string { return r.ID },
		table.Column{Header: "CONTAINER", Field: "Container"}, table.Column{Header: "SERVICE", Field: "Service"})
}

func rowOf(r *logsv1.StatsResponse, whole bool) statsRow {
	u, t := r.GetUsage(), r.GetTask()
	limit := u.GetMemoryLimit()
	if limit == 0 {
		limit = u.GetMachineMemory()
	}
	id := t.GetTaskId()
	if !whole {
		id = table.ShortID(id)
	}
	service, _, _ := strings.Cut(t.GetName(), ".")
	size := func(n int64) string { return units.BytesSize(float64(n)) }
	io := func(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
	return statsRow{
		ID: id, Container: id, Name: t.GetName(), Service: service, Node: t.GetHostname(), CPUPerc: fmt.Sprintf("%.2f%%", u.GetCpuPercent()),
		MemUsage: size(u.GetMemory()) + " / " + size(limit), MemPerc: fmt.Sprintf("%.2f%%", float64(u.GetMemory())*100/float64(max(limit, 1))),
		NetIO:   io(u.GetNetworkReceived()) + " / " + io(u.GetNetworkSent()),
		BlockIO: io(u.GetBlockRead()) + " / " + io(u.GetBlockWritten()), PIDs: fmt.Sprint(u.GetPids()),
	}
}
