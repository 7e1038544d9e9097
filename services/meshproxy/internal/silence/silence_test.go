package silence_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/shoalproject/shoal/services/meshproxy/internal/silence"
)

// TestScripts runs the scripts in testdata. A knock is answered at once, or has no answer within a second. Commands:
//
//	peers a,b [others=c,d]        machines with tasks, and others
//	news fresh|stale|away         what the tables are worth from now on
//	off a,b | on a,b              machines that answer no more, or again
//	run DURATION                  what happens; knocks of one moment stand on one line
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{now: time.Unix(0, 0), off: map[string]bool{}, waits: map[string]time.Time{}}
		s.watch = silence.New(s.now, "a")
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "peers":
				others := ""
				d.MaybeScanArgs(t, "others", &others)
				s.watch.Peers(names(d.CmdArgs[0].String()), names(others))
			case "news":
				s.watch.News(s.now, map[string]silence.News{"fresh": silence.Fresh, "stale": silence.Stale, "away": silence.Away}[d.CmdArgs[0].Key])
			case "off", "on":
				for _, id := range names(d.CmdArgs[0].String()) {
					s.off[id] = d.Cmd == "off"
				}
			case "run":
				span, err := time.ParseDuration(d.CmdArgs[0].Key)
				if err != nil {
					t.Fatal(err)
				}
				return s.run(s.now.Add(span))
			default:
				t.Fatalf("no command %q", d.Cmd)
			}
			return ""
		})
	})
}

func names(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

type script struct {
	watch *silence.Watch
	now   time.Time
	off   map[string]bool
	waits map[string]time.Time // knocks that nobody answers, and when that is known
	out   string
	lines []string
}

// run steps through time by hundredths of a second.
func (s *script) run(until time.Time) string {
	s.lines = nil
	for ; !s.now.After(until); s.now = s.now.Add(10 * time.Millisecond) {
		for id, at := range s.waits {
			if !at.After(s.now) {
				delete(s.waits, id)
				s.watch.Answer(s.now, id, false)
			}
		}
		for {
			node, ok, _ := s.watch.Next(s.now)
			if !ok {
				break
			}
			s.knock(node)
		}
		if out := strings.Join(s.watch.Out(), " "); out != s.out {
			s.say("left out: [%s]", out)
			s.out = out
		}
	}
	return strings.Join(s.lines, "\n")
}

func (s *script) knock(node string) {
	if s.off[node] {
		s.waits[node] = s.now.Add(time.Second)
		s.say("knock %s, no answer", node)
		return
	}
	s.watch.Answer(s.now, node, true)
	s.say("knock %s", node)
}

func (s *script) say(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf("%5.2fs ", float64(s.now.UnixMilli())/1000)+fmt.Sprintf(format, args...))
}

// Machines that all hear at once that the tables are stale do not all knock at the same one.
func TestEachBeginsElsewhere(t *testing.T) {
	now := time.Unix(0, 0)
	all := []string{"a", "b", "c", "d"}
	for i, self := range all {
		w := silence.New(now, self)
		w.Peers(slices.DeleteFunc(slices.Clone(all), func(id string) bool { return id == self }), nil)
		w.News(now, silence.Stale)
		var got []string
		for range 3 {
			node, _, _ := w.Next(now)
			got = append(got, node)
			now = now.Add(10 * time.Millisecond)
		}
		if want := slices.Concat(all[i+1:], all[:i]); !slices.Equal(got, want) {
			t.Errorf("%s knocks at %v, want %v", self, got, want)
		}
	}
}
