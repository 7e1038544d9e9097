package arch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Tree is the workspace as the rules see it.
type Tree struct {
	Root    string // of the modules' paths, such as github.com/shoalproject/shoal
	Modules []*Module
	Files   []*File // sorted by path
}

// Module is one go.mod that go.work uses.
type Module struct {
	Dir, Path string
	Go        string
	Require   []Version
	Replace   map[string]string // old path to new path
}

// Version is one requirement of a go.mod.
type Version struct{ Path, Version string }

// File is one parsed Go file.
type File struct {
	Path      string // slash-separated, relative to the root
	Dir       string // of Path; "." at the root
	Module    *Module
	AST       *ast.File
	Lines     int
	Generated bool
	Test      bool // name ends in _test.go

	fset *token.FileSet
}

// Load reads the workspace whose go.work lies in dir. Folders named testdata, bin, or starting with "." or "_", and
// modules that go.work does not use (tools), are left out.
func Load(dir string) (*Tree, error) {
	var work struct {
		Use []struct{ DiskPath string }
	}
	if err := goJSON(dir, &work, "work", "edit", "-json"); err != nil {
		return nil, err
	}
	t := &Tree{}
	for _, use := range work.Use {
		m, err := loadModule(dir, path.Clean(filepath.ToSlash(use.DiskPath)))
		if err != nil {
			return nil, err
		}
		t.Modules = append(t.Modules, m)
		t.Root = strings.TrimSuffix(m.Path, "/"+m.Dir)
	}
	for _, m := range t.Modules {
		if err := t.loadFiles(dir, m); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(t.Files, func(a, b *File) int { return strings.Compare(a.Path, b.Path) })
	return t, nil
}

func loadModule(root, dir string) (*Module, error) {
	var mod struct {
		Module  struct{ Path string }
		Go      string
		Require []Version
		Replace []struct{ Old, New Version }
	}
	if err := goJSON(filepath.Join(root, dir), &mod, "mod", "edit", "-json"); err != nil {
		return nil, err
	}
	m := &Module{Dir: dir, Path: mod.Module.Path, Go: mod.Go, Require: mod.Require, Replace: map[string]string{}}
	for _, r := range mod.Replace {
		m.Replace[r.Old.Path] = r.New.Path
	}
	return m, nil
}

func goJSON(dir string, into any, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	// The judged tree is the one in dir, whatever the caller's workspace is.
	cmd.Env = append(os.Environ(), "GOWORK=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go %s in %s: %w: %s", strings.Join(args, " "), dir, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return json.Unmarshal(out, into)
}

func (t *Tree) loadFiles(root string, m *Module) error {
	top := filepath.Join(root, m.Dir)
	return filepath.WalkDir(top, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != top && skipDir(name) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := loadFile(root, name, m)
		if err != nil {
			return err
		}
		t.Files = append(t.Files, f)
		return nil
	})
}

func skipDir(name string) bool {
	base := filepath.Base(name)
	if base == "testdata" || base == "bin" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	_, err := os.Stat(filepath.Join(name, "go.mod")) // a module of its own
	return err == nil
}

func loadFile(root, name string, m *Module) (*File, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return nil, err
	}
	f := &File{Path: filepath.ToSlash(rel), Module: m, Lines: bytes.Count(src, []byte("\n")), fset: token.NewFileSet()}
	f.Dir = path.Dir(f.Path)
	f.Test = strings.HasSuffix(name, "_test.go")
	mode := parser.ParseComments | parser.SkipObjectResolution
	if f.AST, err = parser.ParseFile(f.fset, f.Path, src, mode); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	f.Generated = ast.IsGenerated(f.AST)
	return f, nil
}

// Line is the line of a position in f.
func (f *File) Line(p token.Pos) int { return f.fset.Position(p).Line }

// breach reports what at a position in f.
func (f *File) breach(p token.Pos, format string, args ...any) Breach {
	return Breach{File: f.Path, Line: f.Line(p), What: fmt.Sprintf(format, args...)}
}

// imports calls visit with each import path of f and its position.
func (f *File) imports(visit func(path string, at token.Pos)) {
	for _, spec := range f.AST.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			visit(p, spec.Pos())
		}
	}
}

func (f *File) importsPackage(pkg string) bool {
	found := false
	f.imports(func(p string, _ token.Pos) { found = found || p == pkg })
	return found
}

// names maps the name under which f knows an imported package to its path. Without type checking, the name of an
// import without an alias is taken from its path; a version suffix (/v2) does not count.
func (f *File) names() map[string]string {
	names := map[string]string{}
	for _, spec := range f.AST.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(p)
		if len(name) > 1 && name[0] == 'v' && strings.Trim(name[1:], "0123456789") == "" {
			name = path.Base(path.Dir(p))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = p
	}
	return names
}

// uses calls visit with each "package.Name" that f mentions, as the package's import path and the name. A local
// variable that shadows a package's name would deceive it; the linters forbid such shadowing.
func (f *File) uses(visit func(pkg, name string, at token.Pos)) {
	names := f.names()
	ast.Inspect(f.AST, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if id, ok := sel.X.(*ast.Ident); ok {
			if pkg, known := names[id.Name]; known {
				visit(pkg, sel.Sel.Name, sel.Pos())
			}
		}
		return true
	})
}

// under reports whether dir is one of the folders or lies in one of them.
func under(dir string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return dir == f || strings.HasPrefix(dir, f+"/") })
}
