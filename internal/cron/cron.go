// Package cron reads schedules in the five fields that people know from cron: minute, hour, day of month, month, day of week.
//
// It owns the grammar and the arithmetic of the calendar. It is pure: time is an argument.
package cron

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // every machine must read a time zone in the same way, whatever is installed on it
)

// horizon is how far ahead a schedule is searched: a leap day comes again within eight years.
const horizon = 9 * 366

// Schedule is a set of minutes.
type Schedule struct {
	minute, hour, day, month, weekday uint64 // bits
	anyDay, anyWeekday                bool
	zone                              *time.Location
}

type field struct {
	name     string
	low, top int
	names    string // three letters each, the first for low
}

func fields() [5]field {
	return [5]field{
		{name: "minute", low: 0, top: 59}, {name: "hour", low: 0, top: 23}, {name: "day of month", low: 1, top: 31},
		{name: "month", low: 1, top: 12, names: "janfebmaraprmayjunjulaugsepoctnovdec"},
		{name: "day of week", low: 0, top: 7, names: "sunmontuewedthufrisat"},
	}
}

func short(text string) string {
	switch text {
	case "@hourly":
		return "0 * * * *"
	case "@daily", "@midnight":
		return "0 0 * * *"
	case "@weekly":
		return "0 0 * * 0"
	case "@monthly":
		return "0 0 1 * *"
	case "@yearly", "@annually":
		return "0 0 1 1 *"
	}
	return text
}

// Parse reads a schedule in a time zone, UTC when that is empty. One that never comes is an error.
func Parse(text, zone string) (*Schedule, error) {
	s := &Schedule{}
	var faults []error
	location, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		faults = append(faults, fmt.Errorf("unknown time zone %q; use a name such as Europe/Berlin", zone))
	}
	s.zone = location
	parts := strings.Fields(short(strings.TrimSpace(text)))
	if len(parts) != 5 {
		return nil, errors.Join(append(faults, fmt.Errorf("schedule %q has %d fields and not 5: minute, hour, day of month, month, day of week", text, len(parts)))...)
	}
	for i, f := range fields() {
		bits, err := f.parse(parts[i])
		if err != nil {
			faults = append(faults, fmt.Errorf("schedule %q: %w", text, err))
		}
		*[]*uint64{&s.minute, &s.hour, &s.day, &s.month, &s.weekday}[i] = bits
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	s.anyDay, s.anyWeekday = parts[2][0] == '*', parts[4][0] == '*'
	if s.weekday&(1<<7) != 0 {
		s.weekday |= 1 // Sunday has two numbers
	}
	// Any time will do to ask whether it ever comes; this one is before a leap year.
	if s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("schedule %q never comes", text)
	}
	return s, nil
}

func (f field) parse(text string) (bits uint64, err error) {
	for _, part := range strings.Split(text, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		low, top, step := f.low, f.top, 1
		if stepped {
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 {
				return 0, fmt.Errorf("%s: step %q is no number from 1", f.name, stepText)
			}
		}
		if span != "*" {
			from, to, ranged := strings.Cut(span, "-")
			if low, err = f.number(from); err != nil {
				return 0, err
			}
			if ranged {
				if top, err = f.number(to); err != nil {
					return 0, err
				}
			} else if !stepped {
				top = low
			}
			if low > top {
				return 0, fmt.Errorf("%s: %q goes backwards", f.name, span)
			}
		}
		for i := low; i <= top; i += step {
			bits |= 1 << i
		}
	}
	return bits, nil
}

func (f field) number(text string) (int, error) {
	if i := strings.Index(f.names, strings.ToLower(text)); len(text) == 3 && i >= 0 && i%3 == 0 {
		return f.low + i/3, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.low || n > f.top {
		return 0, fmt.Errorf("%s: %q is not from %d to %d", f.name, text, f.low, f.top)
	}
	return n, nil
}

// Next is the first time after t at which the schedule comes; zero when there is none for years. A time that the change to
// summer time skips is left out; one that comes twice counts once.
func (s *Schedule) Next(t time.Time) time.Time {
	t = t.In(s.zone)
	day := time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, s.zone) // noon is on every day
	for range horizon {
		if s.onDay(day) {
			if at := s.within(day, t); !at.IsZero() {
				return at
			}
		}
		day = day.AddDate(0, 0, 1)
	}
	return time.Time{}
}

// Last is the last time in (from, now] at which the schedule comes, zero if there is none, and the first one after now.
func (s *Schedule) Last(from, now time.Time) (last, next time.Time) {
	if from.Before(now.AddDate(0, 0, -2)) {
		from = s.before(from, now)
	}
	for next = s.Next(from); !next.IsZero() && !next.After(now); next = s.Next(next) {
		last = next
	}
	return last, next
}

// before finds a time not long before now, or from itself, that a search may start at without missing the last one.
func (s *Schedule) before(from, now time.Time) time.Time {
	for back := 1; back < horizon; back *= 4 {
		start := now.AddDate(0, 0, -back)
		if !start.After(from) {
			return from
		}
		if at := s.Next(start); !at.IsZero() && !at.After(now) {
			return start
		}
	}
	return from
}

func (s *Schedule) onDay(t time.Time) bool {
	if s.month&(1<<t.Month()) == 0 {
		return false
	}
	day, weekday := s.day&(1<<t.Day()) != 0, s.weekday&(1<<t.Weekday()) != 0
	if s.anyDay || s.anyWeekday {
		return day && weekday
	}
	return day || weekday // as cron has always had it: either of two that are both given
}

// within is the first time on a day that is after t.
func (s *Schedule) within(day, t time.Time) time.Time {
	for hour := range 24 {
		if s.hour&(1<<hour) == 0 {
			continue
		}
		for minute := range 60 {
			if s.minute&(1<<minute) == 0 {
				continue
			}
			at := time.Date(day.Year(), day.Month(), day.Day(), hour, minute, 0, 0, s.zone)
			if first := at.Add(-time.Hour); first.Hour() == hour && first.Minute() == minute {
				at = first // of a time that comes twice
			}
			if at.Hour() == hour && at.Minute() == minute && at.After(t) {
				return at
			}
		}
	}
	return time.Time{}
}
