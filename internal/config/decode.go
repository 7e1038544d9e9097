package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/shoalproject/shoal/internal/errs"
)

// decoder writes a file's values into a config struct and notes all that is wrong on the way. The YAML library's own
// decoder ends at the first mistake.
type decoder struct {
	faults errs.Collector
	at     map[string]string // field path to its place in the file, such as "[3:7]"
	bad    map[string]bool   // fields with a fault
}

func newDecoder() *decoder { return &decoder{at: map[string]string{}, bad: map[string]bool{}} }

// note adds a fault with its place.
func (d *decoder) note(at *token.Token, field, format string, args ...any) {
	d.faults.Add(field, "%s %s", fmt.Sprintf(format, args...), place(at))
	d.bad[field] = true
}

// merge adds Validate's faults. The ones of fields that could not be read are left out: they are about a default.
func (d *decoder) merge(err error) {
	for _, f := range errs.FaultsOf(err) {
		root, _, _ := strings.Cut(f.Field, "[")
		switch at := d.placeOf(f.Field); {
		case d.bad[f.Field] || d.bad[root]:
		case at != "":
			d.faults.Add(f.Field, "%s %s", f.Reason, at)
		default:
			d.faults.Add(f.Field, "%s", f.Reason)
		}
	}
}

// placeOf is where the field stands in the file, or the list that it is an item of; empty if it is a default.
func (d *decoder) placeOf(field string) string {
	if at := d.at[field]; at != "" {
		return at
	}
	list, _, _ := strings.Cut(field, "[")
	return d.at[list]
}

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

// value writes one node into what a field holds.
func (d *decoder) value(field string, node ast.Node, into reflect.Value) {
	d.at[field] = place(node.GetToken())
	if into.Type() == reflect.TypeFor[time.Duration]() {
		d.duration(field, node, into)
		return
	}
	switch into.Kind() {
	case reflect.Struct:
		d.structure(field, node, into)
	case reflect.Slice:
		d.list(field, node, into)
	case reflect.Map:
		d.table(field, node, into)
	case reflect.String:
		if s, ok := text(node); ok {
			into.SetString(s)
			return
		}
		d.mismatch(field, node, "a text")
	case reflect.Bool:
		if b, ok := node.(*ast.BoolNode); ok {
			into.SetBool(b.Value)
			return
		}
		d.mismatch(field, node, "true or false")
	default:
		d.number(field, node, into)
	}
}

func (d *decoder) structure(field string, node ast.Node, into reflect.Value) {
	keys := keysOf(into)
	d.pairs(field, node, func(name string, pair *ast.MappingValueNode) {
		path := below(field, name)
		target, ok := keys.find(name)
		if !ok {
			d.note(pair.Key.GetToken(), path, "unknown key; %s", keys.suggest(name))
			return
		}
		d.value(path, pair.Value, target)
	})
}

func (d *decoder) table(field string, node ast.Node, into reflect.Value) {
	out := reflect.MakeMap(into.Type())
	d.pairs(field, node, func(name string, pair *ast.MappingValueNode) {
		item := reflect.New(into.Type().Elem()).Elem()
		d.value(below(field, name), pair.Value, item)
		out.SetMapIndex(reflect.ValueOf(name).Convert(into.Type().Key()), item)
	})
	into.Set(out)
}

// pairs visits the keys of a mapping, each once.
func (d *decoder) pairs(field string, node ast.Node, visit func(name string, pair *ast.MappingValueNode)) {
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		d.mismatch(field, node, "keys with values")
		return
	}
	first := map[string]string{}
	for _, pair := range mapping.Values {
		name := pair.Key.GetToken().Value
		at := place(pair.Key.GetToken())
		if before := first[name]; before != "" {
			d.note(pair.Key.GetToken(), below(field, name), "is there twice, first at %s; keep one", before)
			continue
		}
		first[name] = at
		visit(name, pair)
	}
}

func (d *decoder) list(field string, node ast.Node, into reflect.Value) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		d.mismatch(field, node, "a list, such as [a, b]")
		return
	}
	out := reflect.MakeSlice(into.Type(), len(sequence.Values), len(sequence.Values))
	for i, item := range sequence.Values {
		d.value(field+"["+strconv.Itoa(i)+"]", item, out.Index(i))
	}
	into.Set(out)
}

// duration takes "500ms". A bare number but 0 is refused: nobody means nanoseconds.
func (d *decoder) duration(field string, node ast.Node, into reflect.Value) {
	s, ok := text(node)
	if !ok {
		d.mismatch(field, node, "a duration, such as 500ms, 10s or 72h")
		return
	}
	parsed, err := time.ParseDuration(s)
	if err != nil {
		d.note(node.GetToken(), field, "%q is no duration; write one with its unit, such as 500ms, 10s or 72h", s)
		return
	}
	into.SetInt(int64(parsed))
}

func (d *decoder) number(field string, node ast.Node, into reflect.Value) {
	n, ok := node.(*ast.IntegerNode)
	if !ok || !into.CanInt() && !into.CanUint() {
		d.mismatch(field, node, "a whole number")
		return
	}
	value, fits := n.Value.(uint64)
	if signed, is := n.Value.(int64); is {
		value, fits = uint64(max(signed, 0)), signed >= 0 || into.CanInt()
		if into.CanInt() && fits && !into.OverflowInt(signed) {
			into.SetInt(signed)
			return
		}
	}
	switch {
	case fits && into.CanUint() && !into.OverflowUint(value):
		into.SetUint(value)
	case fits && into.CanInt() && value <= math.MaxInt64 && !into.OverflowInt(int64(value)):
		into.SetInt(int64(value))
	case !fits:
		d.note(node.GetToken(), field, "is %s, wanted at least 0", node.GetToken().Value)
	default:
		d.note(node.GetToken(), field, "%s does not fit into %d bits", node.GetToken().Value, into.Type().Bits())
	}
}

func (d *decoder) mismatch(field string, node ast.Node, want string) {
	d.note(node.GetToken(), field, "is %s, wanted %s", describe(node), want)
}

// text is what a scalar says, as it is written: `version: 1.10` is not the number 1.1 for a field that wants a text.
func text(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func describe(node ast.Node) string {
	switch n := node.(type) {
	case *ast.MappingNode:
		return "a group of keys"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "empty"
	case *ast.StringNode, *ast.LiteralNode:
		s, _ := text(n)
		return "the text " + strconv.Quote(s)
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + n.GetToken().Value
	case *ast.BoolNode:
		return n.GetToken().Value
	}
	return "an anchor, alias or tag (write the value out)"
}

func place(at *token.Token) string {
	if at == nil || at.Position == nil {
		return ""
	}
	return fmt.Sprintf("[%d:%d]", at.Position.Line, at.Position.Column)
}

func below(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}
