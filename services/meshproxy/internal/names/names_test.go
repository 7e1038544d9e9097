package names_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/names"
)

// TestScripts runs the scripts in testdata. Commands:
//
//	tables   what a machine is told, whole, one thing a line
//	ask      questions, one a line: the container's address, the type, the name
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var view *names.View
		revision := uint64(0)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "tables":
				revision++
				r := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{Revision: revision}, Full: true}
				for line := range strings.Lines(d.Input) {
					part(t, r, strings.Fields(line))
				}
				var m *mesh.Model
				m, err := m.Apply(r)
				if err != nil {
					t.Fatal(err)
				}
				view = names.Of(m, view)
				return ""
			case "ask":
				var out strings.Builder
				for line := range strings.Lines(d.Input) {
					fmt.Fprintln(&out, ask(t, view, strings.Fields(line)))
				}
				return out.String()
			}
			t.Fatalf("no command %q", d.Cmd)
			return ""
		})
	})
}

func part(t *testing.T, r *dispatcherv1.EndpointsResponse, f []string) {
	t.Helper()
	kv := map[string][]string{}
	for _, pair := range f[2:] {
		k, v, _ := strings.Cut(pair, "=")
		kv[k] = append(kv[k], v)
	}
	switch f[0] {
	case "network":
		r.Networks = append(r.Networks, &dispatcherv1.MeshNetwork{
			NetworkId: f[1], Name: f[1], Subnets: kv["subnet"], Internal: slices.Contains(f, "internal"),
		})
	case "task":
		r.LocalTasks = append(r.LocalTasks, &dispatcherv1.LocalTask{
			TaskId: f[1], Addresses: kv["at"], NetworkIds: kv["on"], Nameservers: kv["dns"],
		})
	case "service":
		r.NetworkServices = append(r.NetworkServices, &dispatcherv1.NetworkService{
			NetworkId: kv["on"][0], ServiceId: f[1], Name: f[1], Vips: kv["vip"], Aliases: kv["alias"],
		})
	case "endpoint":
		s := r.NetworkServices[len(r.NetworkServices)-1]
		slot, _ := strconv.ParseUint(strings.Join(kv["slot"], ""), 10, 64)
		s.Endpoints = append(s.Endpoints, &dispatcherv1.NetworkEndpoint{TaskId: f[1], Slot: slot, Addresses: kv["at"]})
	default:
		t.Fatalf("no part %q", f[0])
	}
}

func ask(t *testing.T, v *names.View, f []string) string {
	t.Helper()
	c := v.Client(netip.MustParseAddr(f[0]))
	if c == nil {
		return "a stranger"
	}
	if f[1] == "upstream" {
		return fmt.Sprintf("internal=%t nameservers=%v", c.Internal, c.Nameservers)
	}
	a := c.Resolve(f[2], map[string]names.Type{"A": names.A, "AAAA": names.AAAA, "PTR": names.PTR, "SRV": names.SRV}[f[1]])
	switch {
	case a.Verdict == names.Elsewhere:
		return "elsewhere"
	case a.Verdict == names.Missing:
		return "missing"
	}
	var out []string
	for _, x := range a.Addresses {
		out = append(out, x.String())
	}
	out = append(out, a.Names...)
	for _, s := range a.Services {
		out = append(out, fmt.Sprintf("%s:%d%v", s.Name, s.Port, s.Addresses))
	}
	if len(out) == 0 {
		return "exists, nothing of that type"
	}
	return strings.Join(out, " ")
}

// What has not changed is not indexed again: with thousands of names on a network, a change on another one is free.
func BenchmarkChangeAmongThousands(b *testing.B) {
	r := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{}, Full: true}
	for _, n := range []string{"big", "small"} {
		r.Networks = append(r.Networks, &dispatcherv1.MeshNetwork{NetworkId: n, Name: n})
	}
	r.LocalTasks = []*dispatcherv1.LocalTask{{TaskId: "t", Addresses: []string{"10.128.0.2"}, NetworkIds: []string{"big", "small"}}}
	for i := range 5000 {
		s := &dispatcherv1.NetworkService{NetworkId: "big", ServiceId: strconv.Itoa(i), Name: "s" + strconv.Itoa(i), Vips: []string{"10.0.0.2"}}
		for j := range 3 {
			s.Endpoints = append(s.Endpoints, &dispatcherv1.NetworkEndpoint{
				TaskId: fmt.Sprintf("task%d.%d", i, j), Slot: uint64(j), Addresses: []string{fmt.Sprintf("10.0.%d.%d", i%250, j)},
			})
		}
		r.NetworkServices = append(r.NetworkServices, s)
	}
	var m *mesh.Model
	m, err := m.Apply(r)
	if err != nil {
		b.Fatal(err)
	}
	view := names.Of(m, nil)
	change := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{}, NetworkServices: []*dispatcherv1.NetworkService{
		{NetworkId: "small", ServiceId: "x", Name: "x"},
	}}
	for _, on := range []string{"small", "big"} {
		change.NetworkServices[0].NetworkId = on
		b.Run(on, func(b *testing.B) {
			for b.Loop() {
				next, err := m.Apply(change)
				if err != nil {
					b.Fatal(err)
				}
				view = names.Of(next, view)
			}
		})
	}
}
