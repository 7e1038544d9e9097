package diagnose

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/state"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// clockWarning and clockFault are how far a machine's clock may be from the others'.
const (
	clockWarning = 5 * time.Second
	clockFault   = 5 * time.Minute
)

// networkFinding is a finding with the machine that looked, and the one that it looked at.
type networkFinding struct {
	Node, Peer string
	finding.Finding
}

// DoctorNetwork is `shoal doctor network`.
func DoctorNetwork(a *app.App) *cobra.Command {
	var format string
	var quiet bool
	var from []string
	c := &cobra.Command{
		Use: "network [OPTIONS]", Short: "Look whether the machines reach each other, and what is wrong in between", Args: app.Exactly(0),
		Long: "Have each machine look at its own network (source filter, forwarding, other firewalls, overlapping routes, room for tracked\n" +
			"connections) and, with real packets, at the way to each other machine: the ports of its processes, the tunnel, and how\n" +
			"large a packet comes through. The clocks are compared, too. It changes nothing. It ends with 1 if there is a fault.",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				found, err := examine(c.Context(), cl, from)
				if err != nil {
					return err
				}
				return tell(a, found, format, quiet)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", "", "`template`: table, table TEMPLATE, json, or a Go template")
	f.BoolVarP(&quiet, "quiet", "q", false, "show warnings and faults alone")
	f.StringArrayVar(&from, "from", nil, "only this `node` looks; may be repeated")
	app.Complete(c, "from", a.NodeNames)
	return c
}

func examine(ctx context.Context, cl *client.Client, from []string) ([]networkFinding, error) {
	all, err := nodes(ctx, cl, nil)
	if err != nil {
		return nil, err
	}
	meant, err := nodes(ctx, cl, from)
	if err != nil {
		return nil, err
	}
	hostnames := names(all)
	answers := ask(ctx, time.Now, meant, func(ctx context.Context, node string) (grpc.ServerStreamingClient[logsv1.ExamineNetworkResponse], error) {
		return cl.Network.ExamineNetwork(ctx, &logsv1.ExamineNetworkRequest{Node: node})
	})
	var out []networkFinding
	ahead := map[string]time.Duration{}
	for _, answer := range answers {
		host := state.Hostname(answer.node)
		if answer.err != nil {
			out = append(out, networkFinding{host, "", finding.Faulty("machine", "it can't be asked: "+answer.err.Error(),
				"nothing is known of its network", "shoal node inspect "+host+"; on the machine: shoal doctor")})
		}
		for _, part := range answer.parts {
			if part.GetNow() != nil {
				middle := answer.began.Add(answer.first.Sub(answer.began) / 2)
				ahead[host] = part.GetNow().AsTime().Sub(middle)
			}
			for _, f := range part.GetFindings() {
				out = append(out, networkFinding{host, cmp.Or(hostnames[f.GetPeer()], f.GetPeer()), finding.Finding{
					Check: f.GetCheck(), Grade: gradeOf(f.GetGrade()), What: f.GetWhat(), Why: f.GetWhy(), Fix: f.GetFix(),
				}})
			}
		}
	}
	out = append(out, clocks(ahead)...)
	slices.SortStableFunc(out, func(x, y networkFinding) int { return cmp.Or(cmp.Compare(x.Node, y.Node), cmp.Compare(x.Peer, y.Peer)) })
	return out, nil
}

func gradeOf(g logsv1.FindingGrade) finding.Grade {
	switch g {
	case logsv1.FindingGrade_FINDING_GRADE_FAULT:
		return finding.Fault
	case logsv1.FindingGrade_FINDING_GRADE_WARNING:
		return finding.Warning
	}
	return finding.OK
}

// clocks compares each machine's with the one in the middle of all: one that is off does not make the others look so. How far they
// are from the clock of the machine that asks is of no matter.
func clocks(ahead map[string]time.Duration) []networkFinding {
	var all []time.Duration
	for _, d := range ahead {
		all = append(all, d)
	}
	slices.Sort(all)
	var out []networkFinding
	for host, d := range ahead {
		off := (d - all[len(all)/2]).Round(10 * time.Millisecond)
		what := fmt.Sprintf("%s from the machine in the middle", off)
		const why, fix = "certificates and times in logs are off by as much", "timedatectl set-ntp true"
		f := finding.Well("clock", "%s", what)
		switch {
		case off.Abs() >= clockFault:
			f = finding.Faulty("clock", what, why, fix)
		case off.Abs() >= clockWarning:
			f = finding.Warned("clock", what, why, fix)
		}
		out = append(out, networkFinding{host, "", f})
	}
	return out
}

// tell shows the findings, and is an error if one is a fault.
func tell(a *app.App, found []networkFinding, format string, quiet bool) error {
	count := map[finding.Grade]int{}
	shown := found[:0:0]
	for _, f := range found {
		count[f.Grade]++
		if f.Grade != finding.OK || !quiet {
			shown = append(shown, f)
		}
	}
	if format == "" {
		for _, f := range shown {
			fmt.Fprintf(a.Out, "%-8s %-12s %-12s %-14s %s\n", f.Grade, f.Node, cmp.Or(f.Peer, "-"), f.Check, strings.ReplaceAll(f.What, "\n", " "))
			if f.Why != "" {
				fmt.Fprintf(a.Out, "%49s %s\n", "", f.Why)
			}
			if f.Fix != "" {
				fmt.Fprintf(a.Out, "%49s fix: %s\n", "", f.Fix)
			}
		}
		fmt.Fprintf(a.Err, "%s and %s\n", app.Plural(count[finding.Fault], "fault"), app.Plural(count[finding.Warning], "warning"))
	} else {
		err := table.Write(a.Out, table.List{Format: format, Columns: []table.Column{
			{Header: "GRADE", Field: "Grade"}, {Header: "NODE", Field: "Node"}, {Header: "PEER", Field: "Peer"}, {Header: "CHECK", Field: "Check"},
			{Header: "WHAT", Field: "What"}, {Header: "FIX", Field: "Fix"},
		}, Headers: []table.Column{{Header: "WHY", Field: "Why"}}}, shown)
		if err != nil {
			return err
		}
	}
	if n := count[finding.Fault]; n > 0 {
		return errs.New(errs.Precondition, "the network has %s", app.Plural(n, "fault"))
	}
	return nil
}
