package diagnose

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/finding"

	"github.com/shoalproject/shoal/cli/internal/app"
)

// A clock that is off is told, and does not make the others look so; where the person's own clock stands is of no matter.
func TestClocks(t *testing.T) {
	off := map[string]finding.Grade{}
	for _, f := range clocks(map[string]time.Duration{"a": time.Hour, "b": time.Hour + time.Second, "c": time.Hour - 10*time.Second, "d": 2 * time.Hour, "e": time.Hour}) {
		off[f.Node] = f.Grade
	}
	for host, want := range map[string]finding.Grade{"a": finding.OK, "b": finding.OK, "c": finding.Warning, "d": finding.Fault, "e": finding.OK} {
		if off[host] != want {
			t.Errorf("%s is %q, want %q", host, off[host], want)
		}
	}
}

// Connections are put together by what is asked for; filters come before, the number after.
func TestRows(t *testing.T) {
	list := []connection{
		{Service: "web", Task: "web.1", Node: "m1", Client: "203.0.113.9:1", Protocol: "tcp", State: "established", Carrier: "kernel"},
		{Service: "web", Task: "web.1", Node: "m1", Client: "203.0.113.9:2", Protocol: "tcp", State: "time-wait", Carrier: "kernel"},
		{Service: "web", Task: "web.2", Node: "m2", Client: "[2001:db8::1]:3", Protocol: "tcp", State: "established", Carrier: "userspace"},
		{Service: "dns", Task: "dns.1", Node: "m2", Client: "203.0.113.9:4", Protocol: "udp", Carrier: "kernel"},
	}
	for _, c := range []struct {
		f    connectionFlags
		want string
	}{
		{connectionFlags{by: "service", order: "connections"}, "web 3, dns 1"},
		{connectionFlags{by: "service", order: "service"}, "dns 1, web 3"},
		{connectionFlags{by: "task", order: "connections", most: 1}, "web web.1 m1 2"},
		{connectionFlags{by: "client", order: "connections", filters: []string{"service=web"}}, "web 203.0.113.9 2, web 2001:db8::1 1"},
		{connectionFlags{by: "task", order: "connections", filters: []string{"state=established", "carrier=kernel"}}, "web web.1 m1 1"},
		{connectionFlags{by: "task", order: "connections", filters: []string{"client=2001:db8::1"}}, "web web.2 m2 1"},
	} {
		var got []string
		for _, r := range c.f.rows(list) {
			got = append(got, strings.Join(strings.Fields(fmt.Sprint(r.Service, " ", r.Task, " ", r.Node, " ", r.Client, " ", r.Connections)), " "))
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%+v: %s, want %s", c.f, text, c.want)
		}
	}
	if err := (connectionFlags{by: "x", order: "y", filters: []string{"z"}}).check(); err == nil || strings.Count(err.Error(), "\n") < 3 {
		t.Errorf("not all faults told at once: %v", err)
	}
}

// Who may call a service stands before its ways, where not everybody may.
func TestTraceTellsCallers(t *testing.T) {
	w := way{Node: "m1", Dialled: "10.0.0.2", Carrier: "kernel"}
	for want, callers := range map[string][]string{
		"m1\n  10.0.0.2: the kernel leads it\n":                                                          nil,
		"only db, label:tier=edge may call it, and its own tasks\nm1\n  10.0.0.2: the kernel leads it\n": {"db", "label:tier=edge"},
	} {
		var out strings.Builder
		w.AllowFrom = callers
		if err := showWays(&app.App{Out: &out}, []way{w}, ""); err != nil || out.String() != want {
			t.Errorf("%q, %v; want %q", out.String(), err, want)
		}
	}
}
