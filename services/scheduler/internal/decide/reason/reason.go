// Package reason finds the words for what happened to a task.
//
// It owns their form alone: a person reads them, and some a later decision knows again. It is pure.
package reason

import (
	"fmt"
	"slices"
	"strings"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// stateName is a task's state in lower case.
func stateName(t *typesv1.Task) string {
	return strings.ToLower(strings.TrimPrefix(t.GetObserved().GetState().String(), "TASK_STATE_"))
}

// Ending says in a few words how a task ended.
func Ending(t *typesv1.Task) string {
	o := t.GetObserved()
	switch {
	case o.ExitCode != nil:
		return fmt.Sprintf("exit %d", o.GetExitCode())
	case o.GetMessage() != "":
		return o.GetMessage()
	}
	return stateName(t)
}

// Verdict is Ending with the state before it: "failed: exit 137".
func Verdict(t *typesv1.Task) string {
	name := stateName(t)
	if e := Ending(t); e != name {
		return name + ": " + e
	}
	return name
}

// Gist is a reason without its figures: its distinct words, in order.
func Gist(reason string) string {
	reason, _, _ = strings.Cut(reason, ";") // what is nearest is a figure too
	words := strings.FieldsFunc(reason, func(r rune) bool { return r == ' ' || r == ',' })
	words = slices.DeleteFunc(words, func(w string) bool {
		switch w {
		case "node", "nodes", "is", "are", "lacks", "lack", "has", "have", "does", "do", "meets", "meet", "takes", "take":
			return true
		}
		return w[0] >= '0' && w[0] <= '9'
	})
	slices.Sort(words)
	return strings.Join(slices.Compact(words), " ")
}

// Short writes a duration without needless digits: 5s, 1.5s, 2m0s.
func Short(d time.Duration) string { return d.Round(100 * time.Millisecond).String() }
