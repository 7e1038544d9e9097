package command

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/table"
	"github.com/shoalproject/shoal/internal/contexts"
)

func contextCommand(a *app.App) *cobra.Command {
	return app.Group("context", "Clusters that you can reach, and as whom", contextLs(a), contextUse(a), contextShow(a))
}

// contextRow is a line of `context ls`.
type contextRow struct {
	Name, Cluster, Gateways, Identity, Expires string
	Current                                    bool
}

// Marked is the name with a star if the context is in use.
func (r contextRow) Marked() string {
	if r.Current {
		return r.Name + " *"
	}
	return r.Name
}

func contextRowOf(a *app.App, store *contexts.Store, c contexts.Context, current string) contextRow {
	row := contextRow{Name: c.Name, Current: c.Name == current, Cluster: c.Cluster, Gateways: strings.Join(c.Gateways, ", ")}
	keep, err := identity.Load(a.Env, store.Folder(c.Name))
	if err != nil {
		row.Identity = "unreadable"
		return row
	}
	row.Identity, row.Expires = keep.ID().Member(), keep.Certificate().NotAfter.UTC().Format(time.RFC3339)
	if keep.Expired() {
		row.Expires += " (over)"
	}
	return row
}

func contextLs(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List contexts", Args: app.Exactly(0),
		RunE: func(*cobra.Command, []string) error {
			store, err := a.Contexts()
			if err != nil {
				return err
			}
			list, err := store.List()
			if err != nil {
				return err
			}
			current, err := store.Current()
			if err != nil {
				return err
			}
			var rows []contextRow
			for _, ctx := range list {
				rows = append(rows, contextRowOf(a, store, ctx, current))
			}
			columns := []table.Column{
				{Header: "NAME", Field: "Marked"}, {Header: "CLUSTER", Field: "Cluster"}, {Header: "IDENTITY", Field: "Identity"},
				{Header: "EXPIRES", Field: "Expires"}, {Header: "GATEWAYS", Field: "Gateways"},
			}
			return app.PrintRows(a, &l, columns, rows, func(r contextRow) string { return r.Name },
				table.Column{Header: "NAME", Field: "Name"}, table.Column{Header: "CURRENT", Field: "Current"})
		},
	}
	c.Flags().StringVar(&l.Format, "format", "", "`template`: table, table TEMPLATE, json, or a Go template")
	c.Flags().BoolVarP(&l.Quiet, "quiet", "q", false, "show only names")
	return c
}

func contextUse(a *app.App) *cobra.Command {
	c := &cobra.Command{
		Use: "use CONTEXT", Short: "Make a context the one in use", Args: app.Exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := a.Contexts()
			if err != nil {
				return err
			}
			if err := store.Use(args[0]); err != nil {
				return err
			}
			fmt.Fprintln(a.Out, args[0])
			return nil
		},
	}
	return app.Completed(c, a.ContextNames)
}

func contextShow(a *app.App) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "show [OPTIONS] [CONTEXT]", Aliases: []string{"inspect"}, Short: "Show a context: the one in use, or another", Args: app.Between(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.ContextName = args[0]
			}
			store, ctx, err := a.Picked()
			if err != nil {
				return err
			}
			current, err := store.Current()
			if err != nil {
				return err
			}
			if format == "" {
				format = "Name:      {{.Name}}{{if .Current}} (in use){{end}}\nCluster:   {{.Cluster}}\nIdentity:  {{.Identity}}\n" +
					"Expires:   {{.Expires}}\nGateways:  {{.Gateways}}\nFolder:    " + store.Folder(ctx.Name)
			}
			return table.Inspect(a.Out, format, []contextRow{contextRowOf(a, store, ctx, current)})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	return app.Completed(c, a.ContextNames)
}
