package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/table"
)

// listing are the flags of every command that lists.
type listing struct {
	format  string
	filters []string
	quiet   bool
	noTrunc bool
}

func (l *listing) flags(c *cobra.Command, what string) {
	f := c.Flags()
	f.StringVar(&l.format, "format", "", "`template`: table, table TEMPLATE, json, or a Go template")
	f.StringArrayVarP(&l.filters, "filter", "f", nil, "show only what matches: `key=value`")
	f.BoolVarP(&l.quiet, "quiet", "q", false, "show only "+what)
	f.BoolVar(&l.noTrunc, "no-trunc", false, "do not shorten ids and texts")
}

// checked are the filters, each `key=value`.
func (l *listing) checked() ([]string, error) {
	var c errs.Collector
	for _, f := range l.filters {
		key, _, ok := strings.Cut(f, "=")
		c.Check(ok && key != "", "filter", "%q is not key=value", f)
	}
	return l.filters, c.Err("list")
}

// whole says that ids are not shortened: a person who asked for ids alone gives them to another command.
func (l *listing) whole() bool { return l.noTrunc || l.format == "json" }

// print writes rows, or their ids alone.
func printRows[R any](a *App, l *listing, columns []table.Column, rows []R, id func(R) string, more ...table.Column) error {
	if l.quiet && l.format == "" {
		for _, r := range rows {
			fmt.Fprintln(a.Out, id(r))
		}
		return nil
	}
	return table.Write(a.Out, table.List{Format: l.format, Columns: columns, Headers: more}, rows)
}
