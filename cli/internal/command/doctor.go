package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/finding"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/command/diagnose"
	"github.com/shoalproject/shoal/cli/internal/command/inside"
	"github.com/shoalproject/shoal/cli/internal/machine"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func doctorCommand(a *app.App) *cobra.Command {
	var format string
	var quiet, mend bool
	c := &cobra.Command{
		Use: "doctor [OPTIONS]", Short: "Look whether this machine is fit, and what is wrong", Args: app.Exactly(0),
		Long: "Look at this machine: the kernel's parts, control groups, containerd and runc, ports, other members, the clock, the disk,\n" +
			"limits, names, keys and owners of files, configuration, units. Each line says what is there, and a fault which command\n" +
			"mends it. It changes nothing, but with --repair it has this machine's agent remove the networks that containers have left behind, which\n" +
			"it does when it starts; containers run on. On a machine that is in no cluster it looks whether what is installed could run.",
		RunE: func(c *cobra.Command, _ []string) error {
			m := machineOf(a)
			found := m.Examine(c.Context())
			if mend && slices.ContainsFunc(found, machine.Repairable) {
				if err := m.Repair(c.Context()); err != nil {
					return err
				}
				found = m.Examine(c.Context())
			}
			faults, warnings := 0, 0
			shown := found[:0:0]
			for _, f := range found {
				switch f.Grade {
				case finding.Fault:
					faults++
				case finding.Warning:
					warnings++
				case finding.OK:
					if quiet {
						continue
					}
				}
				shown = append(shown, f)
			}
			var err error
			if format == "" {
				tellFindings(a, shown)
				fmt.Fprintf(a.Err, "%s and %s\n", app.Plural(faults, "fault"), app.Plural(warnings, "warning"))
			} else {
				err = table.Write(a.Out, table.List{Format: format, Columns: []table.Column{
					{Header: "GRADE", Field: "Grade"}, {Header: "CHECK", Field: "Check"}, {Header: "WHAT", Field: "What"}, {Header: "FIX", Field: "Fix"},
				}, Headers: []table.Column{{Header: "WHY", Field: "Why"}}}, shown)
			}
			if err == nil && faults > 0 {
				err = errs.New(errs.Precondition, "this machine has %s", app.Plural(faults, "fault"))
			}
			return err
		},
	}
	c.Flags().StringVar(&format, "format", "", "`template`: table, table TEMPLATE, json, or a Go template")
	c.AddCommand(diagnose.DoctorNetwork(a), diagnose.DoctorAddresses(a))
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show warnings and faults alone")
	c.Flags().BoolVar(&mend, "repair", false, "remove what containers have left behind")
	return c
}

// tellFindings writes a line a finding, and below it why it matters and what mends it.
func tellFindings(a *app.App, list []finding.Finding) {
	for _, f := range list {
		fmt.Fprintf(a.Out, "%-8s %-18s %s\n", f.Grade, f.Check, strings.ReplaceAll(f.What, "\n", " "))
		if f.Why != "" {
			fmt.Fprintf(a.Out, "%27s %s\n", "", f.Why)
		}
		if f.Fix != "" {
			fmt.Fprintf(a.Out, "%27s fix: %s\n", "", f.Fix)
		}
	}
}

// topCommand is that of processes, with that of connections below it.
func topCommand(a *app.App) *cobra.Command {
	c := inside.Top(a)
	c.AddCommand(diagnose.Connections(a))
	return c
}
