package app

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/table"
)

// Listing are the flags of every command that lists.
type Listing struct {
	Format  string
	Filters []string
	Quiet   bool
	NoTrunc bool
}

func (l *Listing) Flags(c *cobra.Command, what string) {
	f := c.Flags()
	f.StringVar(&l.Format, "format", "", "`template`: table, table TEMPLATE, json, or a Go template")
	f.StringArrayVarP(&l.Filters, "filter", "f", nil, "show only what matches: `key=value`")
	f.BoolVarP(&l.Quiet, "quiet", "q", false, "show only "+what)
	f.BoolVar(&l.NoTrunc, "no-trunc", false, "do not shorten ids and texts")
}

// Checked are the filters, each `key=value`.
func (l *Listing) Checked() ([]string, error) {
	var c errs.Collector
	for _, f := range l.Filters {
		key, _, ok := strings.Cut(f, "=")
		c.Check(ok && key != "", "filter", "%q is not key=value", f)
	}
	return l.Filters, c.Err("list")
}

// Whole says that ids are not shortened: a person who asked for ids alone gives them to another command.
func (l *Listing) Whole() bool { return l.NoTrunc || l.Format == "json" }

// PrintRows writes rows, or their ids alone.
func PrintRows[R any](a *App, l *Listing, columns []table.Column, rows []R, id func(R) string, more ...table.Column) error {
	if l.Quiet && l.Format == "" {
		for _, r := range rows {
			fmt.Fprintln(a.Out, id(r))
		}
		return nil
	}
	return table.Write(a.Out, table.List{Format: l.Format, Columns: columns, Headers: more}, rows)
}
