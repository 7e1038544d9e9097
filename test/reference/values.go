package main

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"strings"
	"time"
)

// defaults are the values that the literal in DefaultConfig sets, by field, in YAML. Base's are there by their own names.
func defaults(files []*ast.File) (map[string]string, error) {
	out := map[string]string{}
	for _, f := range files {
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "DefaultConfig" || fn.Recv != nil {
				continue
			}
			if len(fn.Body.List) != 1 {
				return nil, fmt.Errorf("DefaultConfig is more than one return of a literal: make it one, or teach test/reference to read it")
			}
			ret, ok := fn.Body.List[0].(*ast.ReturnStmt)
			if !ok {
				return nil, fmt.Errorf("DefaultConfig does not begin with its return")
			}
			if err := literal(ret.Results[0], out); err != nil {
				return nil, fmt.Errorf("DefaultConfig: %w", err)
			}
		}
	}
	return out, nil
}

func literal(e ast.Expr, out map[string]string) error {
	lit, ok := e.(*ast.CompositeLit)
	if !ok {
		return fmt.Errorf("%T is no literal", e)
	}
	for _, element := range lit.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			return fmt.Errorf("a field without its name")
		}
		name := pair.Key.(*ast.Ident).Name
		if _, nested := pair.Value.(*ast.CompositeLit); nested {
			if err := literal(pair.Value, out); err != nil {
				return err
			}
			continue
		}
		v, duration, err := eval(pair.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out[name] = yamlOf(v, duration)
	}
	return nil
}

// eval computes a constant expression of literals, operators and package time's units.
func eval(e ast.Expr) (v constant.Value, duration bool, err error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0), false, nil
	case *ast.Ident:
		if e.Name == "true" || e.Name == "false" {
			return constant.MakeBool(e.Name == "true"), false, nil
		}
	case *ast.SelectorExpr:
		units := map[string]time.Duration{
			"time.Millisecond": time.Millisecond, "time.Second": time.Second, "time.Minute": time.Minute, "time.Hour": time.Hour,
		}
		if unit, ok := units[typeText(e)]; ok {
			return constant.MakeInt64(int64(unit)), true, nil
		}
	case *ast.BinaryExpr:
		x, xd, err := eval(e.X)
		if err != nil {
			return nil, false, err
		}
		y, yd, err := eval(e.Y)
		if err != nil {
			return nil, false, err
		}
		if e.Op == token.SHL {
			n, _ := constant.Uint64Val(y)
			return constant.Shift(x, e.Op, uint(n)), xd, nil
		}
		return constant.BinaryOp(x, e.Op, y), xd || yd, nil
	}
	return nil, false, fmt.Errorf("%s is no constant that can be read here; write it out", typeText(e))
}

func yamlOf(v constant.Value, duration bool) string {
	if duration {
		n, _ := constant.Int64Val(v)
		return durationText(time.Duration(n))
	}
	if v.Kind() == constant.String {
		return constant.StringVal(v)
	}
	return v.ExactString()
}

// durationText is 1m for time.Minute, where its String has 1m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
