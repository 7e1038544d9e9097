package progress

import (
	"fmt"
	"io"
	"strings"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/docker"
)

const barWidth = 50

// screen draws views. On a terminal the lines of the last view are drawn over.
type screen struct {
	out      io.Writer
	terminal bool

	lines   int // drawn on the terminal that the next drawing replaces
	overall string
	said    map[slotKey]string
	noted   string
}

func stateText(l *controlv1.ListedTask) string {
	state := docker.TaskState(l.GetState())
	if reason := strings.ReplaceAll(l.GetReason(), "\n", " "); reason != "" && l.GetState() != typesv1.TaskState_TASK_STATE_RUNNING {
		return state + " (" + reason + ")"
	}
	return state
}

func (s *screen) draw(v view) {
	if s.out == nil {
		return
	}
	if s.terminal {
		s.redraw(v)
		return
	}
	if line := v.overall(); line != s.overall {
		s.overall, s.noted = line, ""
		fmt.Fprintln(s.out, line)
	}
	if v.want > maxSlots {
		return
	}
	for i, slot := range v.slots {
		key := slotKey{slot.number, slot.node}
		if s.said[key] == slot.text {
			continue
		}
		s.said[key], s.noted = slot.text, ""
		fmt.Fprintf(s.out, "%s: %s\n", v.label(i), slot.text)
	}
}

func (s *screen) redraw(v view) {
	var b strings.Builder
	if s.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.lines)
	}
	line := func(text string) { fmt.Fprintf(&b, "\x1b[2K%s\n", text) }
	line(v.overall())
	drawn := 1
	if v.want <= maxSlots {
		for i, slot := range v.slots {
			text := v.label(i) + ": " + slot.text
			if slot.running && !v.job {
				text = v.label(i) + ": running   [" + strings.Repeat("=", barWidth) + ">]"
			}
			line(text)
			drawn++
		}
	}
	for ; drawn < s.lines; drawn++ {
		line("")
	}
	s.lines = drawn
	s.noted = "" // a note was below and is drawn over by what comes next
	fmt.Fprint(s.out, b.String())
}

// note prints a line below the view, once.
func (s *screen) note(text string) {
	if s.out == nil || s.noted == text || text == "" {
		return
	}
	s.noted = text
	if s.terminal {
		fmt.Fprintf(s.out, "\x1b[2K%s\r", text)
		return
	}
	fmt.Fprintln(s.out, text)
}

// end leaves the cursor below all that was drawn.
func (s *screen) end() {
	if s.out != nil && s.terminal && s.noted != "" {
		fmt.Fprintln(s.out)
	}
}
