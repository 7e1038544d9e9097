package config

import (
	"errors"
	"fmt"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/shoalproject/shoal/internal/errs"
)

// only is the one document's content; nil if there is nothing but comments.
func only(file *ast.File) (ast.Node, error) {
	var body ast.Node
	for i, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		if i > 0 && body != nil {
			return nil, errors.New("a second document follows the first; keep one")
		}
		body = doc.Body
	}
	return body, nil
}

// fault makes the error of a mistake in the file: [line:column] and what is wrong, without the source beside it.
func fault(name string, body ast.Node, err error) error {
	if bad, ok := errors.AsType[*durationError](err); ok {
		return errs.New(errs.Invalid, "config file %s: %s%s", name, bad.place(body), bad)
	}
	return errs.New(errs.Invalid, "config file %s: %s", name, yaml.FormatError(err, false, false))
}

// durationError is a value that is no duration. The decoder tells no place for what a custom unmarshaler refuses.
type durationError struct{ value string }

func (e *durationError) Error() string {
	return fmt.Sprintf("%q is no duration; write one with its unit, such as 500ms, 10s or 72h", e.value)
}

// duration decodes "500ms". A bare number but 0 is refused: nobody means nanoseconds.
func duration(d *time.Duration, text []byte) error {
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		return err
	}
	s := fmt.Sprint(value)
	parsed, err := time.ParseDuration(s)
	if err != nil {
		return &durationError{s}
	}
	*d = parsed
	return nil
}

// place finds the first scalar with that value.
func (e *durationError) place(body ast.Node) string {
	find := &finder{value: e.value}
	if body != nil {
		ast.Walk(find, body)
	}
	return find.found
}

type finder struct{ value, found string }

// Visit is called for every node in order.
func (f *finder) Visit(node ast.Node) ast.Visitor {
	if _, scalar := node.(ast.ScalarNode); scalar && f.found == "" {
		if at := node.GetToken(); at != nil && at.Value == f.value {
			f.found = fmt.Sprintf("[%d:%d] ", at.Position.Line, at.Position.Column)
		}
	}
	return f
}
