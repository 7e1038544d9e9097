package matrix

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/identity"
)

const page = "docs/reference/metrics.md"

// metric is one line of the page, or one call of a constructor in the source.
type metric struct {
	Name, Type string
	Labels     []string
}

// row is what the page says beyond that.
type row struct {
	metric
	unit      string
	processes []string
}

// TestThePageListsEveryMetric: the page has what the sources make, by name, type and labels, and nothing that is gone.
func TestThePageListsEveryMetric(t *testing.T) {
	var documented []metric
	for _, r := range readPage(t) {
		documented = append(documented, r.metric)
		if want := unitOf(r.Name); want != "" && r.unit != want {
			t.Errorf("%s: %s has the unit %q, and its name says %q", page, r.Name, r.unit, want)
		}
	}
	made := readSources(t)
	byName := func(a, b metric) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(made, byName)
	slices.SortFunc(documented, byName)
	if len(made) == 0 {
		t.Fatal("no metric was found in the sources")
	}
	if diff := cmp.Diff(documented, made); diff != "" {
		t.Errorf("%s differs from the sources (- page, + sources):\n%s", page, diff)
	}
}

// TestProcessesMeasureWhatThePageSays: a metric that a running process has is on the page, with that process.
func TestProcessesMeasureWhatThePageSays(t *testing.T) {
	rows := readPage(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, m := range w.Machines {
			for _, role := range m.Roles {
				process := identity.RoleName(role)
				families, err := m.Metrics(process).Gather()
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range families {
					i := slices.IndexFunc(rows, func(r row) bool { return r.Name == f.GetName() })
					if i < 0 {
						t.Errorf("the %s has %s, which %s does not list", process, f.GetName(), page)
					} else if p := rows[i].processes; !slices.Contains(p, process) && !slices.Contains(p, "all") {
						t.Errorf("the %s has %s, and %s says: %s", process, f.GetName(), page, strings.Join(p, ", "))
					}
				}
			}
		}
	})
}

func unitOf(name string) string {
	if strings.HasSuffix(name, "_seconds") {
		return "seconds"
	}
	return ""
}

// readPage reads the tables of the page: name, type, unit, labels, processes, meaning.
func readPage(t *testing.T) []row {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", page))
	if err != nil {
		t.Fatal(err)
	}
	var out []row
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| `shoal_") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 6 {
			t.Fatalf("%s: %q has %d cells, wanted name, type, unit, labels, processes, meaning", page, line, len(cells))
		}
		for i, c := range cells {
			cells[i] = strings.TrimSpace(c)
		}
		r := row{metric: metric{Name: strings.Trim(cells[0], "`"), Type: cells[1]}, unit: cells[2]}
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cells[3], -1) {
			r.Labels = append(r.Labels, m[1])
		}
		r.processes = strings.Split(cells[4], ", ")
		if cells[2] == "" || cells[4] == "" || cells[5] == "" {
			t.Errorf("%s: %s lacks its unit, processes or meaning", page, r.Name)
		}
		out = append(out, r)
	}
	return out
}

// readSources finds every prometheus.NewX(prometheus.XOpts{Name: ...}, labels) outside tests.
func readSources(t *testing.T) []metric {
	t.Helper()
	var out []metric
	for _, root := range []string{"../../internal", "../../services", "../../cli"} {
		err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			var bad error
			ast.Inspect(parsed, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				kind := kindOf(call.Fun)
				if kind == "" {
					return true
				}
				found, err := read(kind, call.Args)
				if err != nil {
					bad = fmt.Errorf("%s: %w", file, err)
				}
				out = append(out, found...)
				return true
			})
			return bad
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// kindOf is the type of metric that a constructor makes, empty for all other functions.
func kindOf(fun ast.Expr) string {
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if pkg, ok := sel.X.(*ast.Ident); !ok || pkg.Name != "prometheus" {
		return ""
	}
	for _, kind := range []string{"Counter", "Gauge", "Histogram", "Summary", "Untyped"} {
		if strings.HasPrefix(sel.Sel.Name, "New"+kind) {
			return strings.ToLower(kind)
		}
	}
	return ""
}

func read(kind string, args []ast.Expr) ([]metric, error) {
	opts, ok := args[0].(*ast.CompositeLit)
	if !ok {
		return nil, fmt.Errorf("a %s whose options are no literal cannot be held against %s", kind, page)
	}
	var labels []string
	if len(args) > 1 {
		if list, ok := args[1].(*ast.CompositeLit); ok {
			for _, e := range list.Elts {
				label, err := texts(e)
				if err != nil {
					return nil, err
				}
				labels = append(labels, label...)
			}
		}
	}
	for _, e := range opts.Elts {
		field, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		if key, ok := field.Key.(*ast.Ident); !ok || key.Name != "Name" {
			continue
		}
		names, err := texts(field.Value)
		if err != nil {
			return nil, err
		}
		out := make([]metric, len(names))
		for i, name := range names {
			out[i] = metric{Name: name, Type: kind, Labels: labels}
		}
		return out, nil
	}
	return nil, fmt.Errorf("a %s without a name", kind)
}

// texts are the values of an expression of string literals and "side", which is server or client.
func texts(e ast.Expr) ([]string, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return []string{s}, err
	case *ast.Ident:
		if e.Name == "side" {
			return []string{"server", "client"}, nil
		}
		return nil, fmt.Errorf("the name of a metric depends on %s: write it out, or teach this test its values", e.Name)
	case *ast.BinaryExpr:
		left, err := texts(e.X)
		if err != nil {
			return nil, err
		}
		right, err := texts(e.Y)
		if err != nil {
			return nil, err
		}
		var out []string
		for _, l := range left {
			for _, r := range right {
				out = append(out, l+r)
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("the name of a metric is a %T: write it out", e)
}
