package arch

import (
	"go/token"
	"path"
	"slices"
	"strings"
)

func wallRules() []Rule {
	return []Rule{
		{"walls", "talk over a proto, or move what both need to internal/", checkWalls},
		{"foreign-walls", "ask the process that owns it, see foreignWalls in test/arch/tables.go", checkForeignWalls},
	}
}

// checkWalls holds the edges between our modules: proto imports nothing of ours, internal imports proto, everything
// else these two and itself; a service's root package and fakes are for rootImporters.
func checkWalls(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		f.imports(func(p string, at token.Pos) {
			if to, ours := strings.CutPrefix(p, t.Root+"/"); ours && !t.mayImport(f, to) {
				found = append(found, f.breach(at, "%s imports %s", f.Dir, to))
			}
		})
	}
	return found
}

func (t *Tree) mayImport(f *File, to string) bool {
	from := f.Module.Dir
	if under(to, from) || under(to, "proto") {
		return true
	}
	if under(to, "internal") {
		return from != "proto"
	}
	return under(f.Dir, rootImporters...) && isServiceRoot(to)
}

// isServiceRoot says whether dir is services/<name> or services/<name>/<name>test.
func isServiceRoot(dir string) bool {
	if path.Dir(dir) == "services" {
		return true
	}
	service := path.Dir(dir)
	return path.Dir(service) == "services" && path.Base(dir) == path.Base(service)+"test"
}

func checkForeignWalls(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		f.imports(func(p string, at token.Pos) {
			for _, wall := range foreignWalls {
				if under(p, wall.Prefix) && !under(f.Dir, wall.Only...) {
					found = append(found, f.breach(at, "%s imports %s (%s)", f.Dir, p, wall.Why))
				}
			}
		})
	}
	return slices.Clip(found)
}
