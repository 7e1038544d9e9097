// Package verdict says what a pull that did not work leads to: another try, and when, or the end, and why in words.
//
// It owns those rules and the words alone. It is pure: no clock, no I/O.
package verdict

import (
	"fmt"
	"time"
)

// Fault is what went wrong.
type Fault uint8

const (
	// Other is what nobody has foreseen.
	Other Fault = iota
	// Status says that the registry answered with a status that is none of success.
	Status
	// Stalled says that nothing came for too long, or, with a detail, too little.
	Stalled
	// Corrupt says that what came is not what was asked for.
	Corrupt
	// Unreachable says that there was no connection, or none that can be trusted.
	Unreachable
	// Full says that the machine's disk is.
	Full
	// Helper says that the machine's own credential helper has failed.
	Helper
	// Foreign says that the image has nothing for a machine of this kind.
	Foreign
)

// Bounds of tries. Ten tries with these pauses take about four minutes; then the scheduler may find another machine.
const (
	MaxTries   = 10
	first      = time.Second
	last       = time.Minute
	longestAsk = 5 * time.Minute // that a registry may ask us to wait
)

// Evidence is what is known of a try that failed.
type Evidence struct {
	Fault      Fault
	Host       string        // of the registry
	Code       int           // of a Status
	RetryAfter time.Duration // that the registry asked for; 0: it did not
	Login      bool          // a login was shown
	Detail     string        // in the registry's or the system's words
	Stall      time.Duration // how long nothing came, when Stalled
}

// Verdict is what follows.
type Verdict struct {
	Final bool
	After time.Duration // until the next try
	Words string
}

// Of judges the try of that number, the first being 1.
func Of(e Evidence, try int) Verdict {
	v := Verdict{Words: words(e), After: min(first<<min(try-1, 10), last)}
	if e.RetryAfter > 0 {
		v.After = min(max(e.RetryAfter, first), longestAsk)
	}
	switch {
	case !again(e):
		v.Final, v.After = true, 0
	case try >= MaxTries:
		v.Final, v.After = true, 0
		v.Words += fmt.Sprintf("; given up after %d tries", try)
	}
	return v
}

// again says whether the same may work a little later. What a person must mend is told at once, and the task replaced
// after its restart delay.
func again(e Evidence) bool {
	switch e.Fault {
	case Stalled, Corrupt, Unreachable, Helper:
		return true
	case Status:
		return e.Code == 408 || e.Code == 429 || e.Code >= 500
	case Other, Full, Foreign:
	}
	return false
}

func words(e Evidence) string {
	said := ""
	if e.Detail != "" {
		said = ": " + e.Detail
	}
	switch e.Fault {
	case Status:
		return ofStatus(e) + said
	case Stalled:
		if e.Detail == "" {
			e.Detail = "nothing"
		}
		return fmt.Sprintf("%s has sent %s for %s", e.Host, e.Detail, e.Stall)
	case Corrupt:
		return fmt.Sprintf("%s has sent what does not have the digest that it should have", e.Host)
	case Unreachable:
		return fmt.Sprintf("%s can't be reached%s", e.Host, said)
	case Full:
		return "this machine's disk is full" + said
	case Foreign:
		return "the image has nothing for machines of this kind" + said
	case Helper, Other:
	}
	return e.Detail
}

func ofStatus(e Evidence) string {
	switch {
	case e.Code == 401 && e.Login:
		return fmt.Sprintf("%s does not accept the login that the cluster keeps for it (401)", e.Host)
	case e.Code == 401:
		return fmt.Sprintf("%s wants a login (401); `shoal registry login %s` gives it one", e.Host, e.Host)
	case e.Code == 403:
		return fmt.Sprintf("%s does not let this login have the image (403)", e.Host)
	case e.Code == 404:
		return fmt.Sprintf("%s has no such image (404)", e.Host)
	case e.Code == 429:
		return fmt.Sprintf("%s says that it was asked too often (429)", e.Host)
	}
	return fmt.Sprintf("%s answers with status %d", e.Host, e.Code)
}

// Progress says how far a pull is; total is 0 while it is not known.
func Progress(done, total int64) string {
	if total <= 0 {
		return "pulling"
	}
	done = min(done, total)
	unit, name := int64(1e6), "MB"
	if total >= 1e10 {
		unit, name = 1e9, "GB"
	} else if total < 1e7 {
		unit, name = 1e3, "kB"
	}
	return fmt.Sprintf("pulling %d %%, %d of %d %s", done*100/total, done/unit, (total+unit-1)/unit, name)
}
