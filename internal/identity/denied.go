package identity

import (
	"crypto/x509"
	"strconv"
	"strings"
	"time"
)

// beforeMark is between a member and a moment in an entry of the deny list. No id has it.
const beforeMark = "@"

// DeniedBefore is the deny list's entry for a process that was removed at t and whose machine may be given a new
// certificate for that role: all of the member's that are valid from an earlier second than the next one are refused. What
// a CA issues later begins no earlier; see Removed.
func DeniedBefore(member string, t time.Time) string {
	return member + beforeMark + strconv.FormatInt(t.Unix()+1, 10)
}

// Removed finds the latest moment of DeniedBefore's entries for the member: a certificate of it must not be valid from
// before that. It is zero if there is none.
func Removed(entries []string, member string) time.Time {
	var last int64
	for _, e := range entries {
		if m, at, ok := parseBefore(e); ok && m == member {
			last = max(last, at)
		}
	}
	if last == 0 {
		return time.Time{}
	}
	return time.Unix(last, 0)
}

func parseBefore(entry string) (member string, at int64, ok bool) {
	member, moment, ok := strings.Cut(entry, beforeMark)
	if !ok {
		return "", 0, false
	}
	at, err := strconv.ParseInt(moment, 10, 64)
	return member, at, err == nil
}

// denyList is the deny list, ready to be asked.
type denyList struct {
	entries map[string]bool
	before  map[string]int64 // by member: seconds since 1970 that a certificate must not begin before
}

func newDenyList(entries []string) denyList {
	d := denyList{entries: map[string]bool{}, before: map[string]int64{}}
	for _, e := range entries {
		d.entries[e] = true
		if m, at, ok := parseBefore(e); ok {
			d.before[m] = max(d.before[m], at)
		}
	}
	return d
}

// denies reports whether a certificate, or whoever it is for, was removed.
func (d denyList) denies(id ID, leaf *x509.Certificate) bool {
	return d.entries[id.Member()] || d.entries[Serial(leaf)] || leaf.NotBefore.Unix() < d.before[id.Member()]
}
