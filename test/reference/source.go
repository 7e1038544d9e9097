package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// key is one key of a config file, as the code has it.
type key struct {
	name    string // in the file
	goName  string
	goType  string // string, []string, bool, int, uint64, time.Duration, …
	doc     string // what it is, without the marks below
	value   string // by DefaultConfig, in YAML; empty if that says nothing
	marks   map[string]string
	defined string // the struct, for errors
}

// marks are the sentences of a field's comment that have a column or a use of their own: "Limits: 1 to 64."
func marks() []string { return []string{"Default", "Limits", "Unit", "Example", "Required", "Reload"} }

// parse reads the Go files of a folder, tests left out.
func parse(root, dir string) ([]*ast.File, error) {
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// fieldsOf lists the keys of a struct type. Base's come from where they are declared.
func fieldsOf(root string, files []*ast.File, name, where string) ([]key, error) {
	def := structNamed(files, name)
	if def == nil {
		return nil, fmt.Errorf("%s has no struct %s", where, name)
	}
	var keys []key
	for _, field := range def.Fields.List {
		tag, err := tagOf(field)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", where, name, err)
		}
		yaml, options, _ := strings.Cut(tag.Get("yaml"), ",")
		if options == "inline" {
			base, err := parse(root, "internal/config")
			if err != nil {
				return nil, err
			}
			inner, err := fieldsOf(root, base, "Base", "internal/config")
			if err != nil {
				return nil, err
			}
			keys = append(keys, inner...)
			continue
		}
		for _, id := range field.Names {
			k := key{name: yaml, goName: id.Name, goType: typeText(field.Type), defined: where + "." + name}
			if k.doc, k.marks, err = splitDoc(field.Doc.Text()); err != nil {
				return nil, fmt.Errorf("%s.%s: %w", k.defined, id.Name, err)
			}
			k.doc = aboutKey(k.doc, id.Name)
			keys = append(keys, k)
		}
	}
	return keys, nil
}

func structNamed(files []*ast.File, name string) *ast.StructType {
	var found *ast.StructType
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.Name == name {
				found, _ = spec.Type.(*ast.StructType)
			}
			return found == nil
		})
	}
	return found
}

func tagOf(field *ast.Field) (reflect.StructTag, error) {
	if field.Tag == nil {
		return "", fmt.Errorf("a field has no yaml tag")
	}
	text, err := strconv.Unquote(field.Tag.Value)
	return reflect.StructTag(text), err
}

func typeText(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return typeText(e.X) + "." + e.Sel.Name
	case *ast.ArrayType:
		return "[]" + typeText(e.Elt)
	}
	return fmt.Sprintf("%T", e)
}

// splitDoc takes the marks out of a comment: sentences that begin with one of their words and a colon, or are "Required.".
func splitDoc(doc string) (rest string, found map[string]string, err error) {
	found = map[string]string{}
	var kept []string
	for _, sentence := range strings.SplitAfter(strings.Join(strings.Fields(doc), " "), ". ") {
		sentence = strings.TrimSpace(sentence)
		word, value, _ := strings.Cut(strings.TrimSuffix(sentence, "."), ":")
		if !slices.Contains(marks(), word) {
			kept = append(kept, sentence)
			continue
		}
		if _, twice := found[word]; twice {
			return "", nil, fmt.Errorf("says %q twice", word)
		}
		found[word] = strings.TrimSpace(value)
	}
	if len(kept) == 0 || kept[0] == "" {
		return "", nil, fmt.Errorf("has no comment that says what it is")
	}
	return strings.Join(kept, " "), found, nil
}

// aboutKey makes "Parallel is how many …" the table's "how many …".
func aboutKey(doc, goName string) string {
	rest := strings.TrimPrefix(doc, goName+" ")
	for _, verb := range []string{"is ", "are "} {
		rest = strings.TrimPrefix(rest, verb)
	}
	return rest
}
