package arch

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// Limits of the house: the aim is what Notes lists, the limit is what fails.
const (
	fileAim, fileLimit       = 300, 600
	packageAim, packageLimit = 1500, 2500
	funcLimit                = 60
	structAim                = 12
)

func sizeRules() []Rule {
	return []Rule{
		{"file-size", "split it by concept, aim below 300 lines", checkFileSize},
		{"package-size", "find the second noun in it and give it a package, aim below 1500 lines", checkPackageSize},
		{"func-size", `split it, or, if it is a recipe whose order matters, number it with "Step 1" comments and the reason of each step`, checkFuncSize},
	}
}

func checkFileSize(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		if !f.Generated && f.Lines > fileLimit {
			found = append(found, Breach{File: f.Path, What: plural(f.Lines, "line")})
		}
	}
	return found
}

func checkPackageSize(t *Tree) []Breach {
	var found []Breach
	for dir, lines := range t.packageLines() {
		if lines > packageLimit {
			found = append(found, Breach{File: dir, What: plural(lines, "line")})
		}
	}
	return found
}

// packageLines counts the lines of each package, tests and generated files apart.
func (t *Tree) packageLines() map[string]int {
	lines := map[string]int{}
	for _, f := range t.Files {
		if !f.Generated && !f.Test {
			lines[f.Dir] += f.Lines
		}
	}
	return lines
}

func checkFuncSize(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		if f.Generated || f.Test {
			continue
		}
		for _, decl := range f.AST.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			lines := f.Line(fn.End()) - f.Line(fn.Pos()) + 1
			if lines > funcLimit && !isRecipe(f, fn) {
				found = append(found, f.breach(fn.Pos(), "%s has %s", fn.Name.Name, plural(lines, "line")))
			}
		}
	}
	return found
}

// isRecipe says whether fn's comments number its steps.
func isRecipe(f *File, fn *ast.FuncDecl) bool {
	if strings.Contains(fn.Doc.Text(), "Step 1") {
		return true
	}
	for _, group := range f.AST.Comments {
		if fn.Pos() < group.Pos() && group.End() < fn.End() && strings.Contains(group.Text(), "Step 1") {
			return true
		}
	}
	return false
}

// Notes lists what is above the aims but below the limits, and exceptions that nothing needs: no failure, a place to look
// when there is time. `go test -v ./arch` shows them.
func Notes(t *Tree) []string {
	var notes []string
	for _, f := range t.Files {
		if f.Generated {
			continue
		}
		if f.Lines > fileAim && f.Lines <= fileLimit {
			notes = append(notes, fmt.Sprintf("%s: %d lines, aim %d", f.Path, f.Lines, fileAim))
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok && s.Fields.NumFields() >= structAim {
				notes = append(notes, fmt.Sprintf("%s:%d: struct %s has %d fields, aim below %d",
					f.Path, f.Line(spec.Pos()), spec.Name.Name, s.Fields.NumFields(), structAim))
			}
			return true
		})
	}
	notes = append(notes, staleExceptions(t)...)
	for dir, lines := range t.packageLines() {
		if lines > packageAim && lines <= packageLimit {
			notes = append(notes, fmt.Sprintf("%s: package of %d lines, aim %d", dir, lines, packageAim))
		}
	}
	return notes
}

// staleExceptions finds lines of tables.go whose folder is gone.
func staleExceptions(t *Tree) []string {
	var notes []string
	for _, table := range []map[string]string{systemPackages, purePackages, pureWithLock, clockReaders, goStarters, statefulFiles} {
		for dir := range table {
			place := strings.TrimSuffix(dir, "/...")
			if !slices.ContainsFunc(t.Files, func(f *File) bool { return under(f.Path, place) }) {
				notes = append(notes, fmt.Sprintf("test/arch/tables.go: %s does not exist (any more)", dir))
			}
		}
	}
	slices.Sort(notes)
	return notes
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
