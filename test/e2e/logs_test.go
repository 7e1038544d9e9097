package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
)

// said are the numbers of a ticker's lines by task, as `service logs` has them: "ticks.1.ab12…@m1    | tick 7".
func said(t *testing.T, logs string) map[string][]int {
	t.Helper()
	out := map[string][]int{}
	for _, line := range lines(logs) {
		who, text, ok := strings.Cut(line, "|")
		n := -1
		if _, err := fmt.Sscanf(strings.TrimSpace(text), "tick %d", &n); !ok || err != nil {
			t.Fatalf("the line %q is not of a ticker", line)
		}
		name, _, _ := strings.Cut(who, "@")
		out[name] = append(out[name], n)
	}
	return out
}

// ofOne checks that the numbers follow each other, and returns the first and the last.
func ofOne(t *testing.T, numbers []int) (first, last int) {
	t.Helper()
	for i, n := range numbers[1:] {
		if n != numbers[i]+1 {
			t.Fatalf("after line %d comes %d", numbers[i], n)
		}
	}
	return numbers[0], numbers[len(numbers)-1]
}

func logsOfAll(t *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "ticks", "--replicas", "3", c.image("1.0.0"), "-tick", "10ms")
	s := c.full("ticks", 3)
	c.after(s, time.Second)
	all := said(t, c.shoal("service", "logs", "ticks"))
	if len(all) != 3 {
		t.Errorf("the log has lines of %d tasks, want 3", len(all))
	}
	for who, numbers := range all {
		if first, last := ofOne(t, numbers); first != 0 || last < 50 {
			t.Errorf("of %s there are lines %d to %d", who, first, last)
		}
	}
	for who, numbers := range said(t, c.shoal("service", "logs", "--tail", "3", "ticks")) {
		if first, last := ofOne(t, numbers); last != first+2 || first <= all[who][len(all[who])-1]-3 {
			t.Errorf("the last three lines of %s are %v", who, numbers)
		}
	}
	task := runningOf(s, "ticks")[0]
	one := lines(c.shoal("task", "logs", "--timestamps", task.GetMeta().GetId()))
	if !slices.ContainsFunc(one, func(l string) bool { return strings.Contains(l, "tick 40") }) || len(said(t, strings.Join(one, "\n"))) > len(one) {
		t.Errorf("the log of one task: %v", one)
	}
	// From the time of a line on, that line is the first.
	at, rest, _ := strings.Cut(one[40], " ")
	since := lines(c.shoal("task", "logs", "--since", at, task.GetMeta().GetId()))
	if got := said(t, since[0]); !strings.HasSuffix(rest, "tick 40") || fmt.Sprint(onlyOf(got)) != "[40]" {
		t.Errorf("since %s of %q the first line is %q", at, one[40], since[0])
	}
	if until := lines(c.shoal("task", "logs", "--until", at, task.GetMeta().GetId())); len(until) != 40 {
		t.Errorf("until then there are %d lines, want 40", len(until))
	}
	followed, _, _ := c.try(c.via, "timeout", "3", "shoal", "service", "logs", "--follow", "--tail", "1", "ticks")
	for who, numbers := range said(t, followed) {
		if first, last := ofOne(t, numbers); last < first+20 {
			t.Errorf("in three seconds %s said lines %d to %d", who, first, last)
		}
	}
}

func onlyOf(m map[string][]int) []int {
	for _, v := range m {
		return v
	}
	return nil
}

func logsOfTerminal(t *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "screen", "--tty", c.image("1.0.0"), "-tick", "10ms")
	c.after(c.full("screen", 1), 500*time.Millisecond)
	out, stderr, code := c.try(c.via, "shoal", "service", "logs", "--raw", "screen")
	if code != 0 || !strings.HasPrefix(out, "tick 0\r\ntick 1\r\n") {
		t.Errorf("a terminal's output: exit code %d, %q %s", code, out[:min(len(out), 40)], stderr)
	}
}

// logsOfGone: behind our back a container is removed, and its log can be read as before, at once.
func logsOfGone(t *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "gone", "--restart-condition", "none", c.image("1.0.0"), "-tick", "10ms")
	s := c.full("gone", 1)
	c.after(s, 500*time.Millisecond)
	task := runningOf(s, "gone")[0]
	c.on(state.Hostname(s.Node(task.GetDecided().GetNodeId())), "sh", "-c", "ctr -n shoal task rm -f $1; ctr -n shoal container rm $1; true", "sh", task.GetObserved().GetContainerId())
	c.sees("its end is known", 30*time.Second, func(s *state.Snapshot) string {
		return unless(fmt.Sprint(state.Terminal(s.Task(task.GetMeta().GetId()).GetObserved().GetState())), "true")
	})
	for _, target := range [][]string{{"service", "logs", "--raw", "gone"}, {"task", "logs", "--raw", task.GetMeta().GetId()}} {
		began := time.Now()
		out, stderr, code := c.try(c.via, append([]string{"timeout", "10", "shoal"}, target...)...)
		if took := time.Since(began); code != 0 || took > 3*time.Second || !strings.HasPrefix(out, "tick 0\ntick 1\n") {
			t.Errorf("%v of a container that is gone: exit code %d after %s: %.40q %s", target, code, took, out, stderr)
		}
	}
}
