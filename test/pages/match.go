package pages

import (
	"fmt"
	"regexp"
	"strings"
)

// Matches holds what a page says is printed against what was printed, loosely: blanks count as one blank; <id>, <name> and
// the like stand for one word; … stands for anything within a line, and a line of … alone for any lines, also none. Empty
// lines do not count.
func Matches(said, printed string) error {
	want, got := lines(said), lines(printed)
	at, skip := 0, false
	for _, w := range want {
		if w == "…" {
			skip = true
			continue
		}
		pattern := pattern(w)
		from := at
		for at < len(got) && !pattern.MatchString(got[at]) {
			if !skip {
				return fmt.Errorf("line %q, wanted %q", got[at], w)
			}
			at++
		}
		if at == len(got) {
			return fmt.Errorf("no line %q in %q", w, got[min(from, len(got)):])
		}
		at, skip = at+1, false
	}
	if at < len(got) && !skip {
		return fmt.Errorf("line %q is more than it says", got[at])
	}
	return nil
}

func lines(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 {
			out = append(out, strings.Join(words, " "))
		}
	}
	return out
}

// pattern makes a regular expression of a line.
func pattern(line string) *regexp.Regexp {
	text := regexp.QuoteMeta(line)
	text = regexp.MustCompile(`<[a-z][a-z0-9 -]*>`).ReplaceAllString(text, `\S+`)
	// With blanks beside it, … may also stand for nothing.
	text = strings.NewReplacer(" … ", " (.* )?", " …", "( .*)?", "… ", "(.* )?", "…", ".*").Replace(text)
	return regexp.MustCompile("^" + text + "$")
}
