package dns

import (
	"net/netip"
	"testing"

	wire "github.com/miekg/dns"

	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/names"
)

type noHealth struct{}

func (noHealth) Set(string, bool, string) {}

// Whatever a container sends, what it gets back is a message that can be read, or nothing, and fits the datagram.
func FuzzQuestion(f *testing.F) {
	for _, name := range []string{"web.", "tasks.web.", "_80._tcp.web.", "2.0.0.10.in-addr.arpa.", ".", "a.b.c.ip6.arpa."} {
		for _, kind := range []uint16{wire.TypeA, wire.TypeSRV, wire.TypePTR, wire.TypeANY} {
			m := new(wire.Msg).SetQuestion(name, kind)
			m.SetEdns0(4096, true)
			data, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	var m *mesh.Model
	m, err := m.Apply(&dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{}, Full: true,
		Networks:   []*dispatcherv1.MeshNetwork{{NetworkId: "n", Name: "n", Subnets: []string{"10.0.0.0/20"}, Internal: true}},
		LocalTasks: []*dispatcherv1.LocalTask{{TaskId: "a", Addresses: []string{"127.0.1.1"}, NetworkIds: []string{"n"}}},
		NetworkServices: []*dispatcherv1.NetworkService{{
			NetworkId: "n", ServiceId: "s", Name: "web",
			Endpoints: []*dispatcherv1.NetworkEndpoint{{TaskId: "t", Slot: 1, Addresses: []string{"10.0.0.2", "fd00::2"}}},
		}},
	})
	if err != nil {
		f.Fatal(err)
	}
	view := names.Of(m, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		s := New(testx.Env(t), noHealth{})
		s.view.Store(view)
		q, ok := s.read(view.Client(netip.MustParseAddr("127.0.1.1")), data)
		if !ok {
			return
		}
		answer := s.inside(q, true)
		if answer == nil {
			t.Fatal("a container of an internal network would be answered from outside")
		}
		if err := new(wire.Msg).Unpack(answer); err != nil || len(answer) > datagram {
			t.Fatalf("%d bytes, %v", len(answer), err)
		}
	})
}
