package seal_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/types/known/durationpb"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/seal"
)

// TestScripts runs the scripts in testdata, on machine a. Commands:
//
//	tables [mesh] [life=D] [rotation=N]  what the cluster says: "machine ID [vtep=A] [block=B] [key=GENERATION:NAME…]", and
//	                                     "network ID [clear] [on=ID…]" with the machines that have a task on it
//	keys                                 machine a's: "GENERATION NAME made=D [rotation=N]"
//	seen at=D                            handshakes, one more of each: "DEVICE NAME…"
//	plan at=D                            what follows
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{t: t, names: map[seal.PublicKey]string{}, seen: seal.Seen{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			switch d.Cmd {
			case "tables":
				return s.tables(d)
			case "keys":
				return s.own(d)
			case "seen":
				return s.shake(d)
			case "plan":
				return s.plan(d)
			}
			t.Fatalf("no command %q", d.Cmd)
			return ""
		})
	})
}

type script struct {
	t     *testing.T
	model *mesh.Model
	keys  []seal.Key
	seen  seal.Seen
	names map[seal.PublicKey]string
}

func start() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// at is a point in time of the script.
func (s *script) at(text string) time.Time {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return start().Add(d)
}

// public is the key of a name: the name itself, and zeros.
func (s *script) public(name string) seal.PublicKey {
	var k seal.PublicKey
	copy(k[:], name)
	s.names[k] = name
	return k
}

func (s *script) number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) tables(d *datadriven.TestData) string {
	r := &dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{Revision: s.model.Version().GetRevision() + 1}, Full: true, Encryption: &typesv1.Encryption{Mesh: d.HasArg("mesh")},
	}
	life := ""
	if d.MaybeScanArgs(s.t, "life", &life); life != "" {
		r.Encryption.KeyLife = durationpb.New(s.at(life).Sub(start()))
	}
	d.MaybeScanArgs(s.t, "rotation", &r.Encryption.KeyRotation)
	for line := range strings.Lines(d.Input) {
		f, kv := strings.Fields(line), map[string][]string{}
		for _, pair := range f[2:] {
			k, v, _ := strings.Cut(pair, "=")
			kv[k] = append(kv[k], v)
		}
		if f[0] == "network" {
			n := &dispatcherv1.MeshNetwork{NetworkId: f[1], Name: f[1], Vni: 4097, Encrypted: kv["clear"] == nil}
			for _, node := range kv["on"] {
				n.Entries = append(n.Entries, &dispatcherv1.NetworkEntry{TaskId: "t" + node, NodeId: node})
			}
			r.Networks = append(r.Networks, n)
			continue
		}
		m := &dispatcherv1.MeshMachine{NodeId: f[1], Vteps: kv["vtep"], Blocks: kv["block"]}
		for _, key := range kv["key"] {
			generation, name, _ := strings.Cut(key, ":")
			public := s.public(name)
			m.TunnelKeys = append(m.TunnelKeys, &typesv1.TunnelKey{Generation: s.number(generation), PublicKey: public[:]})
		}
		if kv["short"] != nil {
			m.TunnelKeys = append(m.TunnelKeys, &typesv1.TunnelKey{Generation: 9, PublicKey: []byte("short")})
		}
		r.Machines = append(r.Machines, m)
	}
	next, err := (*mesh.Model)(nil).Apply(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.model = next
	return ""
}

func (s *script) own(d *datadriven.TestData) string {
	s.keys = nil
	for line := range strings.Lines(d.Input) {
		f := strings.Fields(line)
		k := seal.Key{Generation: s.number(f[0]), Public: s.public(f[1])}
		for _, pair := range f[2:] {
			switch name, value, _ := strings.Cut(pair, "="); name {
			case "made":
				k.Made = s.at(value)
			case "rotation":
				k.Rotation = s.number(value)
			}
		}
		s.keys = append(s.keys, k)
	}
	return ""
}

func (s *script) shake(d *datadriven.TestData) string {
	var at string
	d.ScanArgs(s.t, "at", &at)
	for line := range strings.Lines(d.Input) {
		f := strings.Fields(line)
		if s.seen[f[0]] == nil {
			s.seen[f[0]] = map[seal.PublicKey]seal.Shake{}
		}
		for _, name := range f[1:] {
			shake := s.seen[f[0]][s.public(name)]
			if shake.Last = s.at(at); shake.First.IsZero() {
				shake.First = shake.Last
			}
			s.seen[f[0]][s.public(name)] = shake
		}
	}
	return ""
}

func (s *script) plan(d *datadriven.TestData) string {
	at := "0s"
	d.MaybeScanArgs(s.t, "at", &at)
	p := seal.Make(s.model, mesh.Self{Node: "a", Tunnel: s.model.Tunnel("a", nil)}, s.keys, s.seen, s.at(at))
	var out strings.Builder
	if p.Seal.Why != "" {
		fmt.Fprintf(&out, "no way: %s\n", p.Seal.Why)
	}
	for _, fault := range p.Faults {
		fmt.Fprintf(&out, "fault: %s\n", fault)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Devices)) {
		dev := p.Devices[name]
		fmt.Fprintf(&out, "%s port=%d sends from %s\n", name, dev.Port, p.Seal.Sources[name])
		keys := slices.SortedFunc(maps.Keys(dev.Peers), func(a, b seal.PublicKey) int { return cmp.Compare(s.names[a], s.names[b]) })
		for _, key := range keys {
			fmt.Fprintf(&out, "  %s at %s takes %s\n", s.names[key], dev.Peers[key].Endpoint, dev.Peers[key].Allowed)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(p.Seal.Ways)) {
		way := p.Seal.Ways[id]
		fmt.Fprintf(&out, "to %s at %s by %s\n", id, way.Address, way.Device)
	}
	if p.Make {
		fmt.Fprintln(&out, "make the next key")
	}
	if p.Drop != 0 {
		fmt.Fprintf(&out, "drop key %d\n", p.Drop)
	}
	if out.Len() == 0 {
		return "nothing"
	}
	return out.String()
}
