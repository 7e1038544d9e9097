// Package admit says whether what a person asks for makes sense, fills in defaults, and names every fault at once.
//
// It owns the rules of specs. It is pure, and it must never allocate: what it admits may still need a port or an address.
package admit

import (
	"regexp"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// MaxName is the length of a name, as of a DNS label.
const MaxName = 63

// Faults collects what is wrong. Faults of several kinds make one error; see Err.
type Faults struct {
	c     errs.Collector
	kinds []errs.Kind
}

// Add notes a fault of the request itself.
func (f *Faults) Add(field, format string, args ...any) {
	f.AddKind(errs.Invalid, field, format, args...)
}

// AddKind notes a fault that depends on what there is: a name that is taken, a network that is not there.
func (f *Faults) AddKind(k errs.Kind, field, format string, args ...any) {
	f.kinds = append(f.kinds, k)
	f.c.Add(field, format, args...)
}

// Check notes a fault unless ok.
func (f *Faults) Check(ok bool, field, format string, args ...any) {
	if !ok {
		f.Add(field, format, args...)
	}
}

// Err is one error of all faults: of their kind if they agree, else Invalid. What is the operation: `create service "web"`.
func (f *Faults) Err(what string) error {
	if len(f.kinds) == 0 {
		return nil
	}
	kind := f.kinds[0]
	for _, k := range f.kinds {
		if k != kind {
			kind = errs.Invalid
		}
	}
	return errs.WithFaults(kind, what, f.c.List()...)
}

// validName reports whether it has the form of names: what a DNS label may be, and the underscore that people use.
func validName(s string) bool {
	return regexp.MustCompile(`^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`).MatchString(s)
}

func (f *Faults) name(a *typesv1.Annotations) {
	switch n := a.GetName(); {
	case n == "":
		f.Add("name", "is missing")
	case len(n) > MaxName:
		f.Add("name", "%q has %d characters, at most %d are allowed", n, len(n), MaxName)
	case !validName(n):
		f.Add("name", "%q must be letters and digits, with - and _ between them", n)
	}
	f.labels(a.GetLabels())
}

func (f *Faults) labels(labels map[string]string) {
	if _, ok := labels[""]; ok {
		f.Add("labels", "a label has no name")
	}
}

// suggest is ` ; did you mean "x"?` for a name that is close to a known one.
func suggest(name string, known []string) string {
	best, distance := "", 3
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := edits(strings.ToLower(name), strings.ToLower(k)); d < distance && d < len(k) {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return `; did you mean "` + best + `"?`
}

// edits is the number of letters to insert, delete, change or swap to come from a to b (optimal string alignment).
func edits(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

// findNetwork is a network by id, name or unique prefix of the id.
func findNetwork(s *state.Snapshot, ref string) (found *typesv1.Network, ambiguous bool) {
	if n := s.Network(ref); n != nil {
		return n, false
	}
	if n := s.NetworkByName(ref); n != nil || ref == "" {
		return n, false
	}
	for n := range s.Networks() {
		if strings.HasPrefix(n.GetMeta().GetId(), ref) {
			if found != nil {
				return nil, true
			}
			found = n
		}
	}
	return found, false
}
