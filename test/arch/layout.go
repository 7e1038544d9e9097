package arch

import (
	"cmp"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
)

func layoutRules() []Rule {
	return []Rule{
		{"package-doc", `write "Package <name> …" (or "Command <name> …"): what it owns, what it must never do, its concurrency rule`, checkPackageDoc},
		{"package-name", "name it by the short noun for what it provides", checkPackageName},
		{"main-size", "keep main.go at 40 lines; the work belongs in the root package's Run", checkMainSize},
		{"root-exports", "a service's root package exports Config, DefaultConfig, Run (store, agent and meshproxy also Env) and what its subcommands in test/arch/tables.go need; the rest goes to its internal/", checkRootExports},
	}
}

// packages groups the hand-written files of t by folder and package name, external test packages apart.
func (t *Tree) packages() map[string][]*File {
	pkgs := map[string][]*File{}
	for _, f := range t.Files {
		if name := f.AST.Name.Name; !f.Generated && !strings.HasSuffix(name, "_test") {
			pkgs[f.Dir] = append(pkgs[f.Dir], f)
		}
	}
	return pkgs
}

func checkPackageDoc(t *Tree) []Breach {
	var found []Breach
	for dir, files := range t.packages() {
		if !slices.ContainsFunc(files, hasPackageDoc) {
			found = append(found, Breach{File: files[0].Path, Line: files[0].Line(files[0].AST.Name.Pos()), What: "package in " + dir + " has no doc"})
		}
	}
	return found
}

func hasPackageDoc(f *File) bool {
	doc, name := f.AST.Doc.Text(), f.AST.Name.Name
	if name == "main" {
		return strings.HasPrefix(doc, "Command ")
	}
	return strings.HasPrefix(doc, "Package "+name+" ")
}

func checkPackageName(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		name := strings.TrimSuffix(f.AST.Name.Name, "_test")
		if slices.Contains(emptyNames, name) {
			found = append(found, f.breach(f.AST.Name.Pos(), "package %q says nothing", name))
		}
	}
	return found
}

func checkMainSize(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		product := under(f.Dir, "services", "cli", "allinone")
		if product && path.Base(f.Path) == "main.go" && f.Lines > 40 {
			found = append(found, Breach{File: f.Path, What: plural(f.Lines, "line")})
		}
	}
	return found
}

func checkRootExports(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		if f.Test || path.Dir(f.Dir) != "services" {
			continue
		}
		allowed := []string{"Config", "DefaultConfig", "Run"}
		if slices.Contains(withEnv, path.Base(f.Dir)) {
			allowed = append(allowed, "Env")
		}
		allowed = append(allowed, subcommands[f.Dir]...)
		for _, name := range topLevel(f) {
			if name.IsExported() && !slices.Contains(allowed, name.Name) {
				found = append(found, f.breach(name.Pos(), "exports %s", name.Name))
			}
		}
	}
	return found
}

// topLevel lists the names that f declares, methods left out.
func topLevel(f *File) []*ast.Ident {
	var names []*ast.Ident
	for _, decl := range f.AST.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				names = append(names, d.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, s.Name)
				case *ast.ValueSpec:
					names = append(names, s.Names...)
				}
			}
		}
	}
	slices.SortFunc(names, func(a, b *ast.Ident) int { return cmp.Compare(a.Pos(), b.Pos()) })
	return names
}

// vars calls visit with each package-level variable of f; spec may declare others beside it.
func (f *File) vars(visit func(name *ast.Ident, value ast.Expr, decl *ast.GenDecl, spec *ast.ValueSpec)) {
	for _, decl := range f.AST.Decls {
		d, ok := decl.(*ast.GenDecl)
		if !ok || d.Tok != token.VAR {
			continue
		}
		for _, spec := range d.Specs {
			s, ok := spec.(*ast.ValueSpec)
			if !ok {
				continue
			}
			for i, name := range s.Names {
				var value ast.Expr
				if i < len(s.Values) {
					value = s.Values[i]
				}
				visit(name, value, d, s)
			}
		}
	}
}
