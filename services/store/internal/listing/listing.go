// Package listing filters, sorts and cuts the lists that people ask for.
//
// It owns the words of filters and the form of page tokens. It never sees the state: who lists gives it rows.
package listing

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
)

// Bounds of lists.
const (
	maxPage = 1000
	// maxPageBytes bounds the objects of a page, encoded; one that is larger by itself is a page of its own.
	maxPageBytes = 2 << 20
	maxFilters   = 100
)

// Filters are the filters of a list: values of one key are alternatives, keys must all hold.
type Filters map[string][]string

// Parse refuses keys that the kind does not know.
func Parse(what string, given []string, known ...string) (Filters, error) {
	var c errs.Collector
	c.Check(len(given) <= maxFilters, "filters", "are %d, at most %d are allowed", len(given), maxFilters)
	out := Filters{}
	for i, g := range given {
		key, value, ok := strings.Cut(g, "=")
		field := fmt.Sprintf("filters[%d]", i)
		switch {
		case !ok || key == "":
			c.Add(field, "%q must be key=value", g)
		case !slices.Contains(known, key):
			c.Add(field, "%q is not known; there are %s", key, strings.Join(known, ", "))
		default:
			out[key] = append(out[key], value)
		}
	}
	return out, c.Err(what)
}

// Match reports whether any of the key's values passes; a key that is not given lets everything pass.
func (f Filters) Match(key string, pass func(value string) bool) bool {
	values, ok := f[key]
	return !ok || slices.ContainsFunc(values, pass)
}

// Prefix takes the beginning of any of these.
func (f Filters) Prefix(key string, of ...string) bool {
	return f.Match(key, func(v string) bool {
		return slices.ContainsFunc(of, func(s string) bool { return s != "" && strings.HasPrefix(s, v) })
	})
}

// Equal compares without regard to case, as people type it.
func (f Filters) Equal(key string, of ...string) bool {
	return f.Match(key, func(v string) bool {
		return slices.ContainsFunc(of, func(s string) bool { return strings.EqualFold(s, v) })
	})
}

// Label takes name or name=value.
func (f Filters) Label(key string, labels map[string]string) bool {
	return f.Match(key, func(v string) bool {
		name, want, valued := strings.Cut(v, "=")
		have, ok := labels[name]
		return ok && (!valued || have == want)
	})
}

// Row is an object of a list with what it is sorted by.
type Row[T any] struct {
	Key   string
	Value T
}

// Sep is below every character of a name, so that a name sorts before its extensions.
const Sep = "\x00"

// Page sorts and cuts: what comes after the token's key, as much as was asked for, and not much more than maxPageBytes. Bytes
// is what an object adds to the answer.
func Page[T any](what string, rows []Row[T], size int32, token string, bytes func(T) int) ([]T, string, error) {
	var c errs.Collector
	c.Check(size >= 0 && size <= maxPage, "page_size", "%d is not from 0 to %d", size, maxPage)
	after, err := base64.RawURLEncoding.DecodeString(token)
	c.Check(err == nil, "page_token", "is not from an earlier answer")
	if err := c.Err(what); err != nil {
		return nil, "", err
	}
	limit := int(size)
	if limit == 0 {
		limit = maxPage
	}
	slices.SortFunc(rows, func(a, b Row[T]) int { return cmp.Compare(a.Key, b.Key) })
	if len(after) > 0 {
		i, found := slices.BinarySearchFunc(rows, string(after), func(r Row[T], k string) int { return cmp.Compare(r.Key, k) })
		if found {
			i++
		}
		rows = rows[i:]
	}
	next := ""
	if n := fitting(rows[:min(limit, len(rows))], bytes); n < len(rows) {
		rows = rows[:n]
		next = base64.RawURLEncoding.EncodeToString([]byte(rows[n-1].Key))
	}
	out := make([]T, 0, len(rows))
	for _, r := range rows {
		out = append(out, r.Value)
	}
	return out, next, nil
}

// fitting is how many of the rows fit into one answer: at least one, if there is any.
func fitting[T any](rows []Row[T], bytes func(T) int) int {
	size := 0
	for i, r := range rows {
		if size += bytes(r.Value); size > maxPageBytes && i > 0 {
			return i
		}
	}
	return len(rows)
}

// SizeOf is the size of an object that is in the answer as it is.
func SizeOf[T proto.Message](o T) int { return proto.Size(o) }
