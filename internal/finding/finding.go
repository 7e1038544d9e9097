// Package finding is what a look at a machine has found: whether something is well, what it is, why it matters, and the
// command that mends it. `shoal doctor` gathers findings of its own and those of the programs that may look where it may
// not (`shoal-agent doctor`, `shoal-meshproxy doctor`), so their form is shared here.
//
// It looks at nothing itself and keeps nothing.
package finding

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/shoalproject/shoal/internal/errs"
)

// Grade says how bad it is.
type Grade string

// The grades. With a fault something will not work; a warning is something that a person should know.
const (
	OK      Grade = "ok"
	Warning Grade = "warning"
	Fault   Grade = "fault"
)

// Finding is the result of one check.
type Finding struct {
	// Check is a short name that does not change between versions, such as "containerd" or "port 2377".
	Check string `json:"check"`
	// Grade is how bad it is.
	Grade Grade `json:"grade"`
	// What was found.
	What string `json:"what"`
	// Why it matters. Empty if it is well.
	Why string `json:"why,omitempty"`
	// Fix is a command, or what else to do. Empty if it is well.
	Fix string `json:"fix,omitempty"`
}

// Well is a finding without a fault.
func Well(check, what string, args ...any) Finding {
	return Finding{Check: check, Grade: OK, What: fmt.Sprintf(what, args...)}
}

// Warned is a finding that a person should know.
func Warned(check, what, why, fix string) Finding {
	return Finding{Check: check, Grade: Warning, What: what, Why: why, Fix: fix}
}

// Faulty is a finding with which something will not work.
func Faulty(check, what, why, fix string) Finding {
	return Finding{Check: check, Grade: Fault, What: what, Why: why, Fix: fix}
}

// Text is the finding in one sentence, as an error tells it.
func (f Finding) Text() string {
	out := f.What
	for _, more := range []string{f.Why, f.Fix} {
		if more != "" {
			out += "; " + more
		}
	}
	return out
}

// Print writes findings: as a JSON array if format is "json", else a line each.
func Print(w io.Writer, list []Finding, format string) error {
	switch format {
	case "json":
		if list == nil {
			list = []Finding{}
		}
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(list)
	case "":
		for _, f := range list {
			if _, err := fmt.Fprintf(w, "%-8s %-18s %s\n", f.Grade, f.Check, f.Text()); err != nil {
				return err
			}
		}
		return nil
	}
	return errs.New(errs.Invalid, "%q is no format; use json, or none for lines", format)
}

// Parse reads what Print has written as JSON.
func Parse(data []byte) ([]Finding, error) {
	var list []Finding
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, errs.New(errs.Internal, "no findings in JSON: %w", err)
	}
	return list, nil
}

// Faults are the findings that are faults.
func Faults(list []Finding) []Finding {
	var out []Finding
	for _, f := range list {
		if f.Grade == Fault {
			out = append(out, f)
		}
	}
	return out
}

// Err is one error of all faults, with the name of the check as its field; nil if there are none.
func Err(what string, list []Finding) error {
	var c errs.Collector
	for _, f := range Faults(list) {
		c.Add(f.Check, "%s", f.Text())
	}
	return c.Err(what)
}
