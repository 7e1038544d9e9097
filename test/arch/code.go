package arch

import (
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"strings"
)

func codeRules() []Rule {
	return []Rule{
		{"go-statement", "hand a named task to run.Group (internal/run), or make it a Run(ctx) error that the caller hands over", checkGo},
		{"no-init", "do it where Run wires, top to bottom", checkInit},
		{"no-package-state", "pass it in, or make it a constant, a function or an unexported table that nobody writes", checkPackageState},
		{"no-sleep", "wait for what you wait for: a channel, a context, a condition, a virtual clock", checkSleep},
		{"skip-reason", "say in t.Skip why, so that a reader of the log knows what was not tested", checkSkip},
	}
}

// checkGo also refuses the ways around the rule: errgroup and WaitGroup.Go start goroutines without a name and without
// panic capture.
func checkGo(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		if f.Test || f.Generated || goStarters[f.Dir] != "" || under(f.Dir, "test", "internal/testx") {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			if stmt, ok := n.(*ast.GoStmt); ok {
				found = append(found, f.breach(stmt.Pos(), "go statement"))
			}
			return true
		})
		f.uses(func(pkg, name string, at token.Pos) {
			if pkg == "golang.org/x/sync/errgroup" || pkg == "sync" && name == "WaitGroup" {
				found = append(found, f.breach(at, "%s.%s starts goroutines", pkg, name))
			}
		})
	}
	return found
}

func checkInit(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		for _, decl := range f.AST.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if ok && !f.Generated && fn.Recv == nil && fn.Name.Name == "init" {
				found = append(found, f.breach(fn.Pos(), "func init"))
			}
		}
	}
	return found
}

// checkSleep lets be what sleeps in a synctest bubble, where time is virtual: the simulation, and the tests of a folder
// in which one opens bubbles, for the others may be its helpers.
func checkSleep(t *Tree) []Breach {
	bubbles := map[string]bool{}
	for _, f := range t.Files {
		bubbles[f.Dir] = bubbles[f.Dir] || f.Test && f.importsPackage("testing/synctest")
	}
	var found []Breach
	for _, f := range t.Files {
		if under(f.Dir, "test/sim") || f.Test && bubbles[f.Dir] {
			continue
		}
		f.uses(func(pkg, name string, at token.Pos) {
			if pkg == "time" && name == "Sleep" {
				found = append(found, f.breach(at, "time.Sleep"))
			}
		})
	}
	return found
}

// checkSkip takes every method named Skip or SkipNow in a test for testing's; nothing else of ours has such a name.
func checkSkip(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		ast.Inspect(f.AST, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !(f.Test || under(f.Dir, "test", "internal/testx")) {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if sel.Sel.Name == "SkipNow" || sel.Sel.Name == "Skip" && (len(call.Args) == 0 || isEmptyString(call.Args[0])) {
				found = append(found, f.breach(call.Pos(), "%s without a reason", sel.Sel.Name))
			}
			return true
		})
	}
	return found
}

func isEmptyString(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return false
	}
	text, err := strconv.Unquote(lit.Value)
	return err == nil && strings.TrimSpace(text) == ""
}

// checkPackageState allows what cannot change: sentinels, compiled expressions, embedded files, link-time strings,
// and unexported literals (tables) that no statement of the package writes.
func checkPackageState(t *Tree) []Breach {
	written := map[string]map[string]bool{}
	for _, f := range t.Files {
		if written[f.Dir] == nil {
			written[f.Dir] = map[string]bool{}
		}
		addWrites(f.AST, written[f.Dir])
	}
	var found []Breach
	for _, f := range t.Files {
		if f.Test || f.Generated || statefulFiles[f.Path] != "" || !under(f.Dir, "services", "internal") {
			continue
		}
		f.vars(func(name *ast.Ident, value ast.Expr, decl *ast.GenDecl, spec *ast.ValueSpec) {
			if name.Name == "_" || isEmbed(decl, spec) || slices.Contains(linkVars[f.Dir], name.Name) {
				return
			}
			if why := mutable(f, name, value, written[f.Dir]); why != "" {
				found = append(found, f.breach(name.Pos(), "var %s %s", name.Name, why))
			}
		})
	}
	return found
}

// mutable says why a variable may change, "" if it cannot.
func mutable(f *File, name *ast.Ident, value ast.Expr, written map[string]bool) string {
	if written[name.Name] {
		return "is written by the package"
	}
	switch v := value.(type) {
	case nil:
		return "is declared to be filled later"
	case *ast.BasicLit:
		return "could be a constant"
	case *ast.FuncLit:
		return "could be a function"
	case *ast.CallExpr:
		if makesImmutable(f, v) {
			return ""
		}
		return "holds the result of a call that may be mutable"
	case *ast.CompositeLit:
		if sel, ok := v.Type.(*ast.SelectorExpr); ok {
			if id, ok := sel.X.(*ast.Ident); ok && strings.HasPrefix(f.names()[id.Name], "sync") {
				return "is shared state"
			}
		}
		if _, isStruct := v.Type.(*ast.Ident); name.IsExported() && !isStruct {
			return "is a table that other packages can write"
		}
		return ""
	case *ast.SelectorExpr, *ast.Ident, *ast.IndexExpr, *ast.BinaryExpr:
		return ""
	}
	return "may be mutable"
}

func makesImmutable(f *File, call *ast.CallExpr) bool {
	switch fun := call.Fun.(type) {
	case *ast.ArrayType: // []byte("…")
		return true
	case *ast.IndexExpr: // reflect.TypeFor[T]()
		return makesImmutable(f, &ast.CallExpr{Fun: fun.X})
	case *ast.SelectorExpr:
		switch x := fun.X.(type) {
		case *ast.CallExpr: // a method on an immutable value: base32.NewEncoding(…).WithPadding(…)
			return makesImmutable(f, x)
		case *ast.SelectorExpr: // base32.StdEncoding.WithPadding(…)
			id, ok := x.X.(*ast.Ident)
			return ok && strings.HasPrefix(f.names()[id.Name], "encoding/base")
		case *ast.Ident:
			pkg := f.names()[x.Name]
			return slices.Contains(immutableMakers[pkg], fun.Sel.Name) || strings.HasSuffix(pkg, "/internal/errs")
		}
	}
	return false
}

func isEmbed(decl *ast.GenDecl, spec *ast.ValueSpec) bool {
	for _, doc := range []*ast.CommentGroup{decl.Doc, spec.Doc} {
		if doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed") }) {
			return true
		}
	}
	return false
}

// addWrites notes each name that a statement below n assigns to, directly or through an index or a field, deletes
// from, or takes the address of. Scopes are ignored: a local variable of the same name counts, which errs on the
// strict side and is mended by a better name.
func addWrites(n ast.Node, names map[string]bool) {
	write := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.Ident:
				names[x.Name] = true
				return
			case *ast.IndexExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			default:
				return
			}
		}
	}
	ast.Inspect(n, func(n ast.Node) bool {
		switch s := n.(type) {
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE {
				for _, lhs := range s.Lhs {
					write(lhs)
				}
			}
		case *ast.IncDecStmt:
			write(s.X)
		case *ast.UnaryExpr:
			if s.Op == token.AND {
				write(s.X)
			}
		case *ast.CallExpr:
			if id, ok := s.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(s.Args) > 0 {
				write(s.Args[0])
			}
		}
		return true
	})
}
