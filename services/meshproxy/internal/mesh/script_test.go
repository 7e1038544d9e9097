package mesh_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// TestScripts runs the scripts in testdata. Commands:
//
//	tables v=N [epoch=N] [full] [data=PORT] [net=CIDR]   a response; lines below it are its parts
//	steps [mtu=N]                                        what machine a does in its kernel; then that is done
//	ports                                                what answers on machine a
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{kernel: mesh.NewKernel()}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "tables":
				return s.tables(t, d)
			case "steps":
				return s.steps(t, d)
			case "ports":
				return s.ports()
			}
			t.Fatalf("no command %q", d.Cmd)
			return ""
		})
	})
}

type script struct {
	model  *mesh.Model
	kernel mesh.Kernel
}

func (s *script) tables(t *testing.T, d *datadriven.TestData) string {
	r := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{Epoch: &typesv1.Epoch{}}, Full: d.HasArg("full")}
	d.MaybeScanArgs(t, "v", &r.Version.Revision)
	d.MaybeScanArgs(t, "epoch", &r.Version.Epoch.Number)
	var port uint64
	d.MaybeScanArgs(t, "data", &port)
	r.DataPort = uint32(port)
	d.MaybeScanArgs(t, "net", &r.MachineNetwork)
	for line := range strings.Lines(d.Input) {
		part(t, r, strings.Fields(line))
	}
	next, err := s.model.Apply(r)
	if err != nil {
		return err.Error()
	}
	s.model = next
	return mesh.Text(next.Version())
}

// part adds what a line says: a kind, a name, and key=value pairs, of which some may be repeated.
func part(t *testing.T, r *dispatcherv1.EndpointsResponse, f []string) {
	t.Helper()
	kv := map[string][]string{}
	for _, pair := range f[2:] {
		k, v, _ := strings.Cut(pair, "=")
		kv[k] = append(kv[k], v)
	}
	one := func(k string) string { return strings.Join(kv[k], "") }
	number := func(k string) uint32 {
		n, err := strconv.Atoi(one(k))
		if err != nil {
			t.Fatalf("%s: %v", strings.Join(f, " "), err)
		}
		return uint32(n)
	}
	switch f[0] {
	case "machine":
		r.Machines = append(r.Machines, &dispatcherv1.MeshMachine{NodeId: f[1], Vteps: kv["vtep"], Addresses: kv["vtep"], Blocks: kv["block"], MeshPort: 2385})
	case "network":
		r.Networks = append(r.Networks, &dispatcherv1.MeshNetwork{NetworkId: f[1], Name: f[1], Vni: number("vni")})
	case "entry":
		n := r.Networks[len(r.Networks)-1]
		n.Entries = append(n.Entries, &dispatcherv1.NetworkEntry{TaskId: f[1], NodeId: one("node"), Addresses: kv["address"]})
	case "service":
		s := &dispatcherv1.MeshService{ServiceId: f[1], Name: f[1]}
		for _, p := range kv["port"] {
			network, rest, _ := strings.Cut(p, "/")
			published, target, _ := strings.Cut(rest, ":")
			pub, _ := strconv.Atoi(published)
			tgt, _ := strconv.Atoi(target)
			proto := map[string]typesv1.Protocol{"tcp": 1, "udp": 2, "sctp": 99}[network]
			s.Ports = append(s.Ports, &typesv1.PortConfig{Protocol: proto, PublishedPort: uint32(pub), TargetPort: uint32(tgt)})
		}
		r.Services = append(r.Services, s)
	case "endpoint":
		s := r.Services[len(r.Services)-1]
		s.Endpoints = append(s.Endpoints, &dispatcherv1.MeshEndpoint{TaskId: f[1], NodeId: one("node"), Addresses: kv["address"], Slot: uint64(number("slot"))})
	case "gone":
		r.RemovedServices, r.RemovedMachines, r.RemovedNetworks = kv["service"], kv["machine"], kv["network"]
	default:
		t.Fatalf("no part %q", f[0])
	}
}

func (s *script) steps(t *testing.T, d *datadriven.TestData) string {
	mtu := 1500
	d.MaybeScanArgs(t, "mtu", &mtu)
	want, err := s.model.Desired(mesh.Self{Node: "a", Tunnel: s.model.Tunnel("a", nil), MTU: mtu})
	var out strings.Builder
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	for _, c := range mesh.Diff(want, s.kernel) {
		fmt.Fprintln(&out, c)
	}
	s.kernel = want
	if out.Len() == 0 {
		return "none"
	}
	return out.String()
}

func (s *script) ports() string {
	var out strings.Builder
	ports, err := s.model.Ports()
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	for _, p := range ports {
		fmt.Fprintf(&out, "%s %s:", p.Listener, p.Service)
		for _, b := range p.Backends {
			fmt.Fprintf(&out, " %s@%s=%s", b.Task, b.Node, b.Address)
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

func TestOnlyOurLinksAreOurs(t *testing.T) {
	for name, want := range map[string][2]bool{ // ours, managed
		"shoal0": {true, true}, "shoal-mesh": {true, true}, "shoalbr4097": {true, true}, "shoalvx4097": {true, true},
		"shoalv0a1b2c3d": {true, false}, "shoalvxyz": {true, false},
		"shoal": {false, false}, "shoal1": {false, false}, "shoaling": {false, false}, "shoalbr": {false, false},
		"shoalbr-x": {false, false}, "eth0": {false, false}, "docker0": {false, false}, "shoalv": {false, false},
	} {
		if got := [2]bool{mesh.Ours(name), mesh.Managed(name)}; got != want {
			t.Errorf("%s: ours and managed are %v, want %v", name, got, want)
		}
	}
}

func TestMACIsThatOfTheAddress(t *testing.T) {
	if got := mesh.MAC(netip.MustParseAddr("10.0.0.255")); got != "02:42:0a:00:00:ff" {
		t.Error(got)
	}
}
