package vip_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/vip"
)

// TestScripts runs the scripts in testdata. Commands:
//
//	tables [out=TASK]   what a container on network n should have, one thing a line; answers what changes
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		have := vip.Table{}
		var model *mesh.Model
		revision := uint64(0)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			revision++
			r := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{Revision: revision}, Full: true}
			r.Networks = []*dispatcherv1.MeshNetwork{{NetworkId: "n"}}
			for line := range strings.Lines(d.Input) {
				part(t, r, strings.Fields(line))
			}
			var m *mesh.Model
			m, err := m.Apply(r)
			if err != nil {
				t.Fatal(err)
			}
			out := ""
			d.MaybeScanArgs(t, "out", &out)
			want := vip.Of(m.Directory("n"), func(task string) bool { return task == out })
			var b strings.Builder
			changes := vip.Diff(have, want)
			for _, c := range changes {
				verb := "set"
				switch {
				case c.Fresh:
					verb = "add"
				case c.Gone:
					verb = "remove"
				}
				fmt.Fprintln(&b, verb, c.VIP, c.Backends)
			}
			if left := vip.Left(have, changes); len(left) > 0 {
				fmt.Fprintln(&b, "flows to", len(left), "led elsewhere:", left)
			}
			gone, back := vip.Departed(model, m)
			if len(gone) > 0 {
				fmt.Fprintln(&b, "refuse", gone)
			}
			if model != nil && len(back) > 0 {
				fmt.Fprintln(&b, "new", back)
			}
			have, model = want, m
			if b.Len() == 0 {
				return "nothing"
			}
			return b.String()
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
	case "entry":
		r.Networks[0].Entries = append(r.Networks[0].Entries, &dispatcherv1.NetworkEntry{TaskId: f[1], Addresses: kv["at"]})
	case "service":
		r.NetworkServices = append(r.NetworkServices, &dispatcherv1.NetworkService{NetworkId: "n", ServiceId: f[1], Name: f[1], Vips: kv["vip"]})
	case "endpoint":
		s := r.NetworkServices[len(r.NetworkServices)-1]
		s.Endpoints = append(s.Endpoints, &dispatcherv1.NetworkEndpoint{TaskId: f[1], Addresses: kv["at"]})
	default:
		t.Fatalf("no part %q", f[0])
	}
}

// A container on two networks has the addresses of both.
func TestUnion(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.16.2")
	if got := vip.Union(vip.Table{a: nil}, vip.Table{b: {b}}); len(got) != 2 || len(got[b]) != 1 {
		t.Errorf("got %v", got)
	}
}
