// Package table prints lists and objects in the ways that a person may ask for: a table with Docker's headers, one
// template a row, JSON lines, or ids alone.
//
// A row is a struct whose fields have Docker's names, so that templates written for docker work. It keeps nothing.
package table

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/docker/go-units"

	"github.com/shoalproject/shoal/internal/errs"
)

// Column is one column of a table: its header and the row's field.
type Column struct{ Header, Field string }

// List is how to print rows.
type List struct {
	// Format is empty or "table" (the default columns), "table TEMPLATE", "json", or a template.
	Format string
	// Columns are the default table's, in order.
	Columns []Column
	// Headers are those of fields which only a person's own table shows.
	Headers []Column
}

// Write prints rows.
func Write[R any](w io.Writer, l List, rows []R) error {
	format, tabular := strings.CutPrefix(strings.TrimSpace(l.Format), "table")
	format = strings.TrimSpace(format)
	switch {
	case l.Format == "" || tabular && format == "":
		return writeTable(w, l, l.defaults(), rows)
	case tabular:
		return writeTable(w, l, format, rows)
	case format == "json":
		return writeJSON(w, rows)
	}
	t, err := parse(format)
	if err != nil {
		return err
	}
	if len(rows) == 0 { // a field that is not there is a mistake with no rows, too
		var none R
		return execute(io.Discard, t, none)
	}
	for _, row := range rows {
		if err := execute(w, t, row); err != nil {
			return err
		}
	}
	return nil
}

func (l List) defaults() string {
	var cells []string
	for _, c := range l.Columns {
		cells = append(cells, "{{."+c.Field+"}}")
	}
	return strings.Join(cells, "\t")
}

func writeTable[R any](w io.Writer, l List, format string, rows []R) error {
	t, err := parse(format)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	headers := map[string]string{}
	for _, c := range append(l.Columns[:len(l.Columns):len(l.Columns)], l.Headers...) {
		headers[c.Field] = c.Header
	}
	// The header line is the same template over the headers, as docker does it.
	if err := execute(tw, t, headers); err != nil {
		return err
	}
	for _, row := range rows {
		if err := execute(tw, t, row); err != nil {
			return err
		}
	}
	return tw.Flush()
}

func writeJSON[R any](w io.Writer, rows []R) error {
	for _, row := range rows {
		data, err := marshal(row, "")
		if err != nil {
			return err
		}
		if _, err := w.Write(append(data, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// Inspect prints objects: a JSON array, or a template for each.
func Inspect[O any](w io.Writer, format string, objects []O) error {
	if format == "" || format == "json" {
		if objects == nil {
			objects = []O{}
		}
		indent := "    "
		if format == "json" {
			indent = ""
		}
		data, err := marshal(objects, indent)
		if err != nil {
			return err
		}
		_, err = w.Write(append(data, '\n'))
		return err
	}
	t, err := parse(format)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if err := execute(w, t, o); err != nil {
			return err
		}
	}
	return nil
}

func marshal(value any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // "*:30000->8000/tcp" is for people
	e.SetIndent("", indent)
	err := e.Encode(value)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

// execute renders one row and its line end whole, so that a faulty template leaves no half line behind.
func execute(w io.Writer, t *template.Template, row any) error {
	var b bytes.Buffer
	if err := t.Execute(&b, row); err != nil {
		return errs.New(errs.Invalid, "--format: %w", err)
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

func parse(format string) (*template.Template, error) {
	// A shell's single quotes leave \t and \n as they were typed.
	format = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format)
	t, err := template.New("format").Funcs(functions()).Option("missingkey=error").Parse(format)
	if err != nil {
		return nil, errs.New(errs.Invalid, "--format: %w", err)
	}
	return t, nil
}

// functions are Docker's.
func functions() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			data, err := marshal(v, "")
			return string(data), err
		},
		"split":    strings.Split,
		"join":     strings.Join,
		"title":    func(s string) string { return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):] },
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      func(s string, before, after int) string { return fmt.Sprintf("%*s%s%*s", before, "", s, after, "") },
		"truncate": Truncate,
		// Ours: nanoseconds, bytes and billionths of a processor as people read them.
		"span": func(ns *int64) string { return time.Duration(*ns).String() },
		"size": func(bytes int64) string { return units.BytesSize(float64(bytes)) },
		"cpus": func(nano int64) float64 { return float64(nano) / 1e9 },
	}
}

// Truncate cuts a text to a number of characters.
func Truncate(s string, length int) string {
	if r := []rune(s); len(r) > length {
		return string(r[:max(length, 0)])
	}
	return s
}

// Ellipsis cuts a text to a number of characters and shows that it did.
func Ellipsis(s string, length int) string {
	if r := []rune(s); len(r) > length {
		return string(r[:max(length-1, 0)]) + "…"
	}
	return s
}

// ShortID is the beginning of an id that is unique in practice.
func ShortID(id string) string { return Truncate(id, 12) }
