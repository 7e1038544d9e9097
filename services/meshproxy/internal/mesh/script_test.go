package mesh_test

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
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/silence"
)

// TestScripts runs the scripts in testdata. Commands:
//
//	tables v=N [epoch=N] [full] [data=PORT] [net=CIDR]   a response; lines below it are its parts
//	steps [mtu=N]                                        what machine a does in its kernel; then that is done
//	ports                                                what answers on machine a
//	entries [only=SET,…]                                 what changes in the sets and maps; then that is done
//	seal [why=WORD]                                      machine a's encrypted way: "device NAME ADDRESS", "way ID ADDRESS DEVICE"
//	local|held|withdrawn A…                              addresses of machine a; ports that others have; tasks that died
//	silent [A…]                                          machines that do not answer while the cluster has no leader
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{kernel: kernel.NewKernel()}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "tables":
				return s.tables(t, d)
			case "steps":
				return s.steps(t, d)
			case "ports":
				return s.ports()
			case "entries":
				return s.entries(t, d)
			case "seal":
				return s.seals(d)
			case "local", "held", "withdrawn", "can":
				return s.know(t, d)
			case "silent":
				s.silent = map[string]bool{}
				for _, a := range d.CmdArgs {
					s.silent[a.Key] = true
				}
				return ""
			}
			t.Fatalf("no command %q", d.Cmd)
			return ""
		})
	})
}

type script struct {
	model     *mesh.Model
	kernel    kernel.Kernel
	published *mesh.Published
	numbers   map[string]uint16
	seal      mesh.Seal
	local     []netip.Addr
	// transparent: machine a can speak with its clients' addresses
	transparent bool
	held        map[mesh.Listener]bool
	withdrawn   map[string]bool
	silent      map[string]bool
}

func (s *script) tables(t *testing.T, d *datadriven.TestData) string {
	r := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{Epoch: &typesv1.Epoch{}}, Full: d.HasArg("full")}
	d.MaybeScanArgs(t, "v", &r.Version.Revision)
	d.MaybeScanArgs(t, "epoch", &r.Version.Epoch.Number)
	var port uint64
	d.MaybeScanArgs(t, "data", &port)
	r.DataPort = uint32(port)
	d.MaybeScanArgs(t, "net", &r.MachineNetwork)
	if d.HasArg("encrypted") {
		r.Encryption = &typesv1.Encryption{Mesh: true}
	}
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
		if one("plane") == "userspace" {
			r.Machines[len(r.Machines)-1].Dataplane = typesv1.Dataplane_DATAPLANE_USERSPACE
		}
	case "network":
		r.Networks = append(r.Networks, &dispatcherv1.MeshNetwork{NetworkId: f[1], Name: f[1], Vni: number("vni"), Subnets: kv["subnet"]})
		r.Networks[len(r.Networks)-1].Encrypted = kv["encrypted"] != nil
		if kv["mtu"] != nil {
			r.Networks[len(r.Networks)-1].Mtu = number("mtu")
		}
	case "entry":
		n := r.Networks[len(r.Networks)-1]
		n.Entries = append(n.Entries, &dispatcherv1.NetworkEntry{TaskId: f[1], NodeId: one("node"), Addresses: kv["address"]})
	case "service":
		s := &dispatcherv1.MeshService{ServiceId: f[1], Name: f[1]}
		for _, p := range kv["port"] {
			s.Ports = append(s.Ports, port(p))
		}
		r.Services = append(r.Services, s)
	case "endpoint":
		s := r.Services[len(r.Services)-1]
		s.Endpoints = append(s.Endpoints, &dispatcherv1.MeshEndpoint{TaskId: f[1], NodeId: one("node"), Addresses: kv["address"], Slot: uint64(number("slot")), Draining: one("draining") != "", HostPorts: hostPorts(kv["host"])})
	case "gone":
		r.RemovedServices, r.RemovedMachines, r.RemovedNetworks = kv["service"], kv["machine"], kv["network"]
	default:
		t.Fatalf("no part %q", f[0])
	}
}

// port is "tcp/30000:8000" with options behind commas.
func port(text string) *typesv1.PortConfig {
	text, options, _ := strings.Cut(text, ",")
	network, rest, _ := strings.Cut(text, "/")
	published, target, _ := strings.Cut(rest, ":")
	pub, _ := strconv.Atoi(published)
	tgt, _ := strconv.Atoi(target)
	p := &typesv1.PortConfig{
		Protocol:      map[string]typesv1.Protocol{"tcp": 1, "udp": 2, "sctp": 3, "dccp": 99}[network],
		PublishedPort: uint32(pub), TargetPort: uint32(tgt),
	}
	for o := range strings.SplitSeq(options, ",") {
		switch name, value, _ := strings.Cut(o, "="); name {
		case "local":
			p.TrafficPolicy = typesv1.TrafficPolicy_TRAFFIC_POLICY_LOCAL
		case "prefer-local":
			p.TrafficPolicy = typesv1.TrafficPolicy_TRAFFIC_POLICY_PREFER_LOCAL
		case "sticky":
			p.SessionAffinity = typesv1.SessionAffinity_SESSION_AFFINITY_CLIENT_IP
		case "userspace":
			p.Dataplane = typesv1.Dataplane_DATAPLANE_USERSPACE
		case "proxy":
			p.ProxyProtocol = true
		case "on":
			p.HostIp = value
		}
	}
	return p
}

func hostPorts(texts []string) (out []*typesv1.PortConfig) {
	for _, text := range texts {
		p := port(text)
		p.PublishMode = typesv1.PublishMode_PUBLISH_MODE_HOST
		out = append(out, p)
	}
	return out
}

// know takes what machine a knows of itself.
func (s *script) know(t *testing.T, d *datadriven.TestData) string {
	s.held, s.withdrawn = map[mesh.Listener]bool{}, map[string]bool{}
	for _, a := range d.CmdArgs {
		switch d.Cmd {
		case "can":
			s.transparent = a.Key == "transparent"
		case "local":
			s.local = append(s.local, netip.MustParseAddr(a.Key))
		case "withdrawn":
			s.withdrawn[a.Key] = true
		case "held":
			network, number, _ := strings.Cut(a.Key, "/")
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				t.Fatal(err)
			}
			s.held[mesh.Listener{Network: network, Port: uint16(n)}] = true
		}
	}
	return ""
}

// seals takes what package seal would plan.
func (s *script) seals(d *datadriven.TestData) string {
	s.seal = mesh.Seal{Address: netip.MustParseAddr("240.0.0.15"), Sources: map[string]netip.Addr{}, Ways: map[string]mesh.SealWay{}}
	for _, a := range d.CmdArgs {
		s.seal.Why = a.Vals[0]
	}
	for line := range strings.Lines(d.Input) {
		f := strings.Fields(line)
		if f[0] == "device" {
			s.seal.Sources[f[1]] = netip.MustParseAddr(f[2])
			continue
		}
		s.seal.Ways[f[1]] = mesh.SealWay{Address: netip.MustParseAddr(f[2]), Device: f[3], Sources: []netip.Addr{netip.MustParseAddr(f[2]).Prev()}}
	}
	return ""
}

// entries shows the elements that change, and has all of the machine be as it should.
func (s *script) entries(t *testing.T, d *datadriven.TestData) string {
	var only string
	d.MaybeScanArgs(t, "only", &only)
	want, err := s.desired(1500)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, c := range kernel.Diff(want, s.kernel) {
		if c.Entry != nil && (only == "" || slices.Contains(strings.Split(only, ","), c.Entry.Set)) {
			fmt.Fprintf(&out, "%s %s\n", c.Verb, c.Entry)
		}
	}
	s.kernel = want
	if out.Len() == 0 {
		return "none"
	}
	return out.String()
}

func (s *script) steps(t *testing.T, d *datadriven.TestData) string {
	mtu := 1500
	d.MaybeScanArgs(t, "mtu", &mtu)
	want, err := s.desired(mtu)
	var out strings.Builder
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	for _, c := range kernel.Diff(want, s.kernel) {
		fmt.Fprintln(&out, c)
	}
	s.kernel = want
	if out.Len() == 0 {
		return "none"
	}
	return out.String()
}

// desired is what machine a should be. What is wrong with ports is told by the command ports.
func (s *script) desired(mtu int) (kernel.Kernel, error) {
	self := s.self(mtu)
	model := silence.Without(s.model, s.silent)
	s.published, _ = model.Publish(self, s.published)
	return model.Desired(self, s.published)
}

func (s *script) self(mtu int) mesh.Self {
	self := mesh.Self{Node: "a", Tunnel: s.model.Tunnel("a", nil), MTU: mtu, Local: s.local, Held: s.held, Withdrawn: s.withdrawn, Transparent: s.transparent, Seal: s.seal}
	s.numbers = s.model.Number(self, s.numbers)
	self.Numbers = s.numbers
	return self
}

func (s *script) ports() string {
	var out strings.Builder
	published, err := silence.Without(s.model, s.silent).Publish(s.self(1500), nil)
	ports := published.Ports()
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	for _, p := range ports {
		fmt.Fprintf(&out, "%s %s:", p.Listener, p.Service)
		switch {
		case p.Refused:
			out.WriteString(" refused")
		case p.UserSpace:
			out.WriteString(" by the meshproxy")
		case p.Bind != nil && len(p.Bind) == 0:
			out.WriteString(" on nothing")
		}
		for _, a := range p.Bind {
			fmt.Fprintf(&out, " on %s", a)
		}
		for _, b := range p.Backends {
			fmt.Fprintf(&out, " %s@%s=%s", b.Task, b.Node, b.Address)
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

func TestOnlyOurLinksAreOurs(t *testing.T) {
	for name, want := range map[string][2]bool{ // ours, managed
		"shoal0": {true, true}, "shoal-wg1": {true, true}, "shoal-wg": {false, false}, "shoal-wgx": {false, false}, "shoal-mesh": {true, true}, "shoalbr4097": {true, true}, "shoalvx4097": {true, true},
		"shoalv0a1b2c3d": {true, false}, "shoalvxyz": {true, false},
		"shoal": {false, false}, "shoal1": {false, false}, "shoaling": {false, false}, "shoalbr": {false, false},
		"shoalbr-x": {false, false}, "eth0": {false, false}, "docker0": {false, false}, "shoalv": {false, false},
	} {
		if got := [2]bool{kernel.Ours(name), kernel.Managed(name)}; got != want {
			t.Errorf("%s: ours and managed are %v, want %v", name, got, want)
		}
	}
}

func TestMACIsThatOfTheAddress(t *testing.T) {
	if got := mesh.MAC(netip.MustParseAddr("10.0.0.255")); got != "02:42:0a:00:00:ff" {
		t.Error(got)
	}
}
