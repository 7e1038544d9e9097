package examine_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/services/meshproxy/internal/examine"
)

// TestScripts runs the scripts in testdata. Commands:
//
//	machine      facts, one a line; answers what is found
//	peer         what was tried on the way to another machine; answers what is found
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "machine":
				return machine(t, d.Input)
			case "peer":
				return peer(t, d.Input)
			}
			t.Fatalf("no command %q", d.Cmd)
			return ""
		})
	})
}

func machine(t *testing.T, input string) string {
	f := examine.Facts{Settings: map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/shoal0/rp_filter": "2", "net/ipv4/conf/shoal-mesh/rp_filter": "2",
	}, Tracked: 10, Room: 1000}
	networks := []examine.Network{
		{Name: "the machine network", Prefix: netip.MustParsePrefix("10.128.0.0/10"), Routed: true},
		{Name: "network front", Prefix: netip.MustParsePrefix("10.0.0.0/20")},
	}
	for line := range strings.Lines(input) {
		w := strings.Fields(line)
		switch w[0] {
		case "set":
			f.Settings[w[1]] = w[2]
		case "route":
			f.Routes = append(f.Routes, examine.Route{Prefix: netip.MustParsePrefix(w[1]), Link: w[2]})
		case "drops":
			f.Forward = append(f.Forward, examine.Chain{Name: strings.Join(w[1:4], " "), LetsPass: len(w) > 4})
		case "tracked":
			f.Tracked, _ = strconv.ParseUint(w[1], 10, 64)
		case "neighbours":
			f.Neighbours, _ = strconv.ParseUint(w[1], 10, 64)
		default:
			t.Fatalf("no fact %q", w[0])
		}
	}
	return text(examine.Machine(f, networks))
}

func peer(t *testing.T, input string) string {
	way := examine.Way{Peer: "b", At: "198.51.100.2", Tunnel: true, DataPort: 8477}
	for line := range strings.Lines(input) {
		w := strings.Fields(line)
		switch w[0] {
		case "port":
			way.Ports = append(way.Ports, examine.Door{Process: w[1], Address: w[2], Fault: strings.Join(w[3:], " ")})
		case "heard":
			way.Heard = true
			way.Full, _ = strconv.Atoi(w[1])
			way.Largest, _ = strconv.Atoi(w[2])
		case "userspace":
			way.Tunnel = false
		default:
			t.Fatalf("no fact %q", w[0])
		}
	}
	return text(examine.Peer(way))
}

func text(list []finding.Finding) string {
	var b strings.Builder
	for _, f := range list {
		if f.Grade != finding.OK {
			fmt.Fprintf(&b, "%s %s: %s\n", f.Grade, f.Check, f.Text())
		}
	}
	if b.Len() == 0 {
		return "well"
	}
	return b.String()
}
