package placeholder

import (
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
)

// Beside is what a container has beside a file that is filled in.
type Beside struct {
	// Env is its environment, by name.
	Env map[string]string
	// Secrets and Configs are the data of its other files, as it is, by their targets.
	Secrets, Configs map[string]string
}

// CheckFile is Check for a text that becomes a file: beside what Expand knows there are {{env "NAME"}}, {{secret "TARGET"}} and
// {{config "TARGET"}}. Whether the container has those is known once there is one. What it says has nothing of the text, which
// may be secret.
func CheckFile(text string) error {
	_, wrong := expand(text, func(name string) (string, bool) {
		if _, _, ok := call(name); ok {
			return "", true
		}
		return Values{}.value(name)
	})
	return wrong.ofFile(text)
}

// ExpandFile fills in a text that becomes a file of at most so many bytes. A variable that is not set is empty. Invalid: see
// CheckFile; and a file that the container does not have, or too many bytes.
func ExpandFile(text string, v Values, b Beside, most int) (string, error) {
	size, missing := 0, ""
	out, wrong := expand(text, func(name string) (string, bool) {
		if size > most {
			return "", true // it is too much already
		}
		what, of, ok := call(name)
		if !ok {
			value, ok := v.value(name)
			size += len(value)
			return value, ok
		}
		from := map[string]map[string]string{"env": b.Env, "secret": b.Secrets, "config": b.Configs}[what]
		value, there := from[of]
		if !there && what != "env" {
			missing = what + " " + strconv.Quote(of)
		}
		size += len(value)
		return value, true
	})
	switch {
	case wrong != nil:
		return "", wrong.ofFile(text)
	case missing != "":
		return "", errs.New(errs.Invalid, "it asks for %s, which the container does not have", missing)
	case size > most || len(out) > most:
		return "", errs.New(errs.Invalid, "what comes out has more than %d bytes", most)
	}
	return out, nil
}

// call takes `env "NAME"` apart.
func call(name string) (what, of string, ok bool) {
	what, quoted, _ := strings.Cut(name, " ")
	if what != "env" && what != "secret" && what != "config" {
		return "", "", false
	}
	of, err := strconv.Unquote(strings.TrimSpace(quoted))
	return what, of, err == nil
}

func (f *fault) ofFile(text string) error {
	if f == nil {
		return nil
	}
	line := 1 + strings.Count(text[:f.at], "\n")
	if !f.closed {
		return errs.New(errs.Invalid, "line %d: {{ has no }}", line)
	}
	return errs.New(errs.Invalid, `line %d: a placeholder is not known; there are %s, env "NAME", secret "TARGET" and config "TARGET"`, line, known)
}
