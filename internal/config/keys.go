package config

import (
	"reflect"
	"slices"
	"strings"
)

// keys are the names that a struct gives its fields in the file, in the struct's order.
type keys []key

type key struct {
	name string
	into reflect.Value
}

// keysOf reads the `yaml` tags; fields of an inline struct count as the outer struct's.
func keysOf(v reflect.Value) keys {
	var out keys
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			out = append(out, keysOf(v.Field(i))...)
		case name != "" && name != "-":
			out = append(out, key{name, v.Field(i)})
		}
	}
	return out
}

func (k keys) find(name string) (reflect.Value, bool) {
	i := slices.IndexFunc(k, func(key key) bool { return key.name == name })
	if i < 0 {
		return reflect.Value{}, false
	}
	return k[i].into, true
}

// suggest says what may have been meant: the nearest name, if it is near enough to be a slip, else all.
func (k keys) suggest(name string) string {
	best, least := "", max(len(name)/3, 1)+1
	all := make([]string, len(k))
	for i, key := range k {
		all[i] = key.name
		if d := distance(name, key.name); d < least {
			best, least = key.name, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "the keys are " + strings.Join(all, ", ")
}

// distance counts the letters to insert, drop, replace or swap with their neighbour to make one word of the other
// (optimal string alignment), with - and _ taken as the same.
func distance(a, b string) int {
	a, b = strings.ReplaceAll(a, "-", "_"), strings.ReplaceAll(b, "-", "_")
	var before, last []int // rows i-2 and i-1 of the table
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
