package pages

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options say how a page is run.
type Options struct {
	// Vars are the values for the names of `sh vars` blocks.
	Vars map[string]string
	// When are the conditions that hold.
	When []string
	// Limit bounds each script; 5 minutes if zero.
	Limit time.Duration
	// Log is told each block with what it printed; may be nil.
	Log func(format string, args ...any)
	// After is called after each script that ended well, with what it printed; may be nil. Its error ends the page.
	After func(b Block, printed string) error
}

const defaultLimit = 5 * time.Minute

// Load reads and parses a page's file.
func Load(file string) (*Page, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, text)
}

// Run runs the page's blocks in their order. The error is of the first that failed, with what it printed.
func (p *Page) Run(ctx context.Context, on Runner, opts Options) error {
	if opts.Limit == 0 {
		opts.Limit = defaultLimit
	}
	if opts.Log == nil {
		opts.Log = func(string, ...any) {}
	}
	r := run{on: on, opts: opts, vars: map[string]string{}}
	for _, b := range p.Blocks {
		if b.When != "" && !slices.Contains(opts.When, b.When) {
			opts.Log("%s:%d: not run without %q", p.Name, b.Line, b.When)
			r.printed = nil
			continue
		}
		if err := r.block(ctx, b); err != nil {
			return fmt.Errorf("%s:%d: %w", p.Name, b.Line, err)
		}
	}
	return nil
}

// run is one run of a page.
type run struct {
	on      Runner
	opts    Options
	vars    map[string]string // what later scripts begin with
	printed *string           // of the last script; nil if it was not run
}

func (r *run) block(ctx context.Context, b Block) error {
	switch {
	case b.Vars != nil:
		for _, name := range b.Vars {
			value, ok := r.opts.Vars[name]
			if !ok {
				return fmt.Errorf("this test has no value for $%s", name)
			}
			r.vars[name] = value
		}
	case b.Kind == "sh":
		return r.script(ctx, b)
	case b.Kind == "output":
		if r.printed == nil {
			return nil
		}
		if err := Matches(b.Text, *r.printed); err != nil {
			return fmt.Errorf("the script before does not print this: %w\nIt printed:\n%s", err, *r.printed)
		}
	case b.File != "":
		script := fmt.Sprintf("cat > %s <<'END OF FILE'\n%sEND OF FILE\n", quote(b.File), b.Text)
		for _, host := range b.Hosts {
			if _, err := r.on.Run(ctx, host, script); err != nil {
				return fmt.Errorf("write %s on %s: %w", b.File, host, err)
			}
		}
	}
	return nil
}

func (r *run) script(ctx context.Context, b Block) error {
	r.printed = new(string)
	r.opts.Log("line %d\n%s", b.Line, indented("$ ", b.Text))
	for _, host := range b.Hosts {
		began := time.Now()
		printed, err := r.one(ctx, b, host)
		r.opts.Log("%s (%s)\n%s", host, time.Since(began).Round(time.Millisecond), printed)
		if err := ended(err, b.Exit); err != nil {
			return fmt.Errorf("on %s: %w\n%s%s", host, err, indented("$ ", b.Text), printed)
		}
		*r.printed += printed
		if b.Set != "" {
			r.vars[b.Set] = strings.TrimSpace(printed)
		}
		if r.opts.After != nil {
			if err := r.opts.After(b, printed); err != nil {
				return fmt.Errorf("after it on %s: %w", host, err)
			}
		}
	}
	return nil
}

// valueOnly keeps what a script says on standard error out of its value, whatever the runner does with it. A script that
// fails still says it.
const valueOnly = `said=$(mktemp); trap 'code=$?; [ "$code" = 0 ] || cat "$said" >&2; rm -f "$said"' EXIT; exec 2>"$said"
`

// one runs a script on one host. Errors go where the output goes, in their order, but where the output is a value.
func (r *run) one(ctx context.Context, b Block, host string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Limit)
	defer cancel()
	var s strings.Builder
	s.WriteString("set -euo pipefail\n")
	if b.Set == "" {
		s.WriteString("exec 2>&1\n")
	} else {
		s.WriteString(valueOnly)
	}
	for _, name := range slices.Sorted(maps.Keys(r.vars)) {
		fmt.Fprintf(&s, "export %s=%s\n", name, quote(r.vars[name]))
	}
	s.WriteString(b.Text)
	return r.on.Run(ctx, host, s.String())
}

// ended holds a script's end against the code that the page wants; empty means 0.
func ended(err error, want string) error {
	if want == "" || want == "0" {
		return err
	}
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
		return fmt.Errorf("ended well, and the page says exit code %s", want)
	case !errors.As(err, &coded):
		return err
	case strconv.Itoa(coded.ExitCode()) != want:
		return fmt.Errorf("%w, and the page says exit code %s", err, want)
	}
	return nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func indented(with, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(with + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}
