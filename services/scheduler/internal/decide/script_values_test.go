package decide_test

import (
	"strconv"
	"strings"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// options splits words into name=value pairs and the rest.
func options(words []string) (opts map[string]string, rest []string) {
	opts = map[string]string{}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			opts[k] = v
		} else {
			rest = append(rest, w)
		}
	}
	return opts, rest
}

// generic reads "gpu:2" and "gpu:a+b".
func (m *sim) generic(text string) (out []*typesv1.GenericResource) {
	kind, list, _ := strings.Cut(text, ":")
	for _, v := range strings.Split(list, "+") {
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			out = append(out, &typesv1.GenericResource{Kind: kind, Discrete: n})
		} else {
			out = append(out, &typesv1.GenericResource{Kind: kind, Named: v})
		}
	}
	return out
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (m *sim) number(text string, otherwise int64) int64 {
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		m.fault("%v", err)
	}
	return n
}

func (m *sim) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		m.fault("%v", err)
	}
	return d
}

func (m *sim) nano(text string) int64 {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		m.fault("%v", err)
	}
	return int64(f * 1e9)
}

func (m *sim) size(text string) int64 {
	shift := 0
	switch {
	case strings.HasSuffix(text, "G"):
		shift = 30
	case strings.HasSuffix(text, "M"):
		shift = 20
	}
	return m.number(strings.TrimRight(text, "GM"), 0) << shift
}

// plusList is separated by a plus sign.
func plusList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '+' })
}
