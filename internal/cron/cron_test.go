package cron_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/cron"
)

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05 -0700", text)
	if err != nil {
		panic(err)
	}
	return t
}

// TestNext: when a schedule comes next, across months, leap days and the changes of summer time.
func TestNext(t *testing.T) {
	for _, c := range []struct{ spec, zone, from, want string }{
		{"* * * * *", "", "2026-03-01 10:00:30 +0000", "2026-03-01 10:01:00 +0000"},
		{"*/15 * * * *", "", "2026-03-01 10:00:00 +0000", "2026-03-01 10:15:00 +0000"},
		{"5/20 * * * *", "", "2026-03-01 10:26:00 +0000", "2026-03-01 10:45:00 +0000"},
		{"0 3 * * *", "", "2026-03-01 03:00:00 +0000", "2026-03-02 03:00:00 +0000"},
		{"@hourly", "", "2026-12-31 23:10:00 +0000", "2027-01-01 00:00:00 +0000"},
		{"0 0 29 feb *", "", "2026-03-01 00:00:00 +0000", "2028-02-29 00:00:00 +0000"},
		{"0 12 * * mon-fri", "", "2026-11-20 13:00:00 +0000", "2026-11-23 12:00:00 +0000"}, // Friday to Monday
		{"0 12 13 * fri", "", "2026-11-21 00:00:00 +0000", "2026-11-27 12:00:00 +0000"},    // either
		{"0 0 * * 7", "", "2026-11-20 00:00:00 +0000", "2026-11-22 00:00:00 +0000"},
		{"30 9 * * *", "Asia/Kolkata", "2026-11-20 00:00:00 +0000", "2026-11-20 04:00:00 +0000"},
		// In Berlin 02:30 does not exist on 29 March 2026, and comes twice on 25 October.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28 03:00:00 +0100", "2026-03-30 02:30:00 +0200"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-24 12:00:00 +0200", "2026-10-25 02:30:00 +0200"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25 02:30:00 +0200", "2026-10-26 02:30:00 +0100"},
	} {
		s, err := cron.Parse(c.spec, c.zone)
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
			continue
		}
		if got := s.Next(at(c.from)); !got.Equal(at(c.want)) {
			t.Errorf("%s %s after %s: %s, want %s", c.spec, c.zone, c.from, got, c.want)
		}
	}
}

// TestLast: of those that were missed the last one is found, however long ago it was.
func TestLast(t *testing.T) {
	for _, c := range []struct{ spec, from, now, last, next string }{
		{"0 * * * *", "2026-03-01 10:30:00 +0000", "2026-03-01 10:40:00 +0000", "", "2026-03-01 11:00:00 +0000"},
		{"0 * * * *", "2026-03-01 10:30:00 +0000", "2026-03-01 13:40:00 +0000", "2026-03-01 13:00:00 +0000", "2026-03-01 14:00:00 +0000"},
		{"* * * * *", "2016-03-01 10:30:00 +0000", "2026-03-01 13:40:00 +0000", "2026-03-01 13:40:00 +0000", "2026-03-01 13:41:00 +0000"},
		{"0 0 1 1 *", "2016-03-01 10:30:00 +0000", "2026-03-01 13:40:00 +0000", "2026-01-01 00:00:00 +0000", "2027-01-01 00:00:00 +0000"},
	} {
		s, err := cron.Parse(c.spec, "")
		if err != nil {
			t.Fatal(err)
		}
		last, next := s.Last(at(c.from), at(c.now))
		if c.last == "" && !last.IsZero() || c.last != "" && !last.Equal(at(c.last)) || !next.Equal(at(c.next)) {
			t.Errorf("%s in (%s, %s]: %s and %s", c.spec, c.from, c.now, last, next)
		}
	}
}

// TestRefused: what makes no sense, and what never comes, is refused with words that say why.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ spec, zone, want string }{
		{"* * * *", "", "has 4 fields"},
		{"", "", "has 0 fields"},
		{"60 * * * *", "", "minute: \"60\" is not from 0 to 59"},
		{"* * 0 * *", "", "day of month"},
		{"* * * foo *", "", "month: \"foo\""},
		{"*/0 * * * *", "", "step \"0\""},
		{"30-10 * * * *", "", "goes backwards"},
		{"0 0 30 2 *", "", "never comes"},
		{"0 0 31 4,6 *", "", "never comes"},
		{"* * * * *", "Mars/Olympus", "time zone"},
		{"* * * * *", "Local", "time zone"},
	} {
		if _, err := cron.Parse(c.spec, c.zone); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %s: error %v, want one with %q", c.spec, c.zone, err, c.want)
		}
	}
}
