// Package placeholder fills in what a spec can only say once a task has a node: `{{.Service.Name}}`, `{{.Task.Slot}}`,
// `{{.Node.Hostname}}`.
//
// It owns the few forms that there are, which are Docker's. It is not a language: the store checks what the agent will fill
// in, so nothing may depend on values, loop, or grow. It is pure.
package placeholder

import (
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
)

// Values are what placeholders stand for.
type Values struct {
	ServiceID, ServiceName string
	ServiceLabels          map[string]string
	NodeID, NodeHostname   string
	NodeOS, NodeArch       string
	TaskID, TaskName       string
	// TaskSlot is the slot's number, of a global service the node's id.
	TaskSlot string
}

// Check reports what in a text is no placeholder. Invalid.
func Check(text string) error {
	_, err := Expand(text, Values{})
	return err
}

// Expand fills in a text. A label that the service does not have is empty. Invalid: see Check.
func Expand(text string, v Values) (string, error) {
	out, wrong := expand(text, v.value)
	switch {
	case wrong == nil:
		return out, nil
	case !wrong.closed:
		return "", errs.New(errs.Invalid, "%q: {{ has no }}", text)
	default:
		return "", errs.New(errs.Invalid, "%q: {{%s}} is not known; there are %s", text, wrong.inner, known)
	}
}

const known = `.Service.ID, .Service.Name, .Service.Labels.NAME, index .Service.Labels "NAME", .Node.ID, .Node.Hostname, ` +
	`.Node.Platform.OS, .Node.Platform.Architecture, .Task.ID, .Task.Name and .Task.Slot`

// In reports whether a text has any.
func In(text string) bool { return strings.Contains(text, "{{") }

// fault is where a text can't be filled in.
type fault struct {
	at     int // byte of its {{
	inner  string
	closed bool
}

func expand(text string, value func(name string) (string, bool)) (string, *fault) {
	var out strings.Builder
	for rest := text; ; {
		before, after, found := strings.Cut(rest, "{{")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		at := len(text) - len(after) - len("{{")
		inner, tail, closed := strings.Cut(after, "}}")
		if !closed {
			return "", &fault{at: at}
		}
		filled, ok := value(strings.TrimSpace(inner))
		if !ok {
			return "", &fault{at: at, inner: inner, closed: true}
		}
		out.WriteString(filled)
		rest = tail
	}
}

func (v Values) value(name string) (string, bool) {
	switch name {
	case ".Service.ID":
		return v.ServiceID, true
	case ".Service.Name":
		return v.ServiceName, true
	case ".Node.ID":
		return v.NodeID, true
	case ".Node.Hostname":
		return v.NodeHostname, true
	case ".Node.Platform.OS":
		return v.NodeOS, true
	case ".Node.Platform.Architecture":
		return v.NodeArch, true
	case ".Task.ID":
		return v.TaskID, true
	case ".Task.Name":
		return v.TaskName, true
	case ".Task.Slot":
		return v.TaskSlot, true
	}
	if label, ok := strings.CutPrefix(name, ".Service.Labels."); ok && label != "" && !strings.ContainsAny(label, ".\" ") {
		return v.ServiceLabels[label], true
	}
	if quoted, ok := strings.CutPrefix(name, "index .Service.Labels "); ok {
		label, err := strconv.Unquote(strings.TrimSpace(quoted))
		return v.ServiceLabels[label], err == nil
	}
	if strings.HasPrefix(name, `"`) { // {{"{{"}} is a way to write what is none
		literal, err := strconv.Unquote(name)
		return literal, err == nil
	}
	return "", false
}
