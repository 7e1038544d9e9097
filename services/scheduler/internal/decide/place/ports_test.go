package place_test

import (
	"testing"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// TestPortsOfNoNumber: whoever asks for any port gets one that no task on the node has and that does not answer on every
// machine, wherever the search begins, and another for each that it asks for.
func TestPortsOfNoNumber(t *testing.T) {
	host := func(port uint32) *typesv1.PortConfig {
		return &typesv1.PortConfig{Protocol: typesv1.Protocol_PROTOCOL_TCP, TargetPort: 80, PublishedPort: port, PublishMode: typesv1.PublishMode_PUBLISH_MODE_HOST}
	}
	n := place.NewNode(&typesv1.Node{})
	for port := uint32(state.FirstHostPort); port <= state.LastHostPort; port++ {
		if port != 61003 && port != 61005 && port != 65000 {
			n.Occupy([]*typesv1.PortConfig{host(port)}, 1)
		}
	}
	r := place.NewRequest(&typesv1.TaskSpec{}, []*typesv1.PortConfig{host(0), host(0)}, 0)
	taken := func(_ typesv1.Protocol, port uint32) bool { return port == 65000 }
	for _, id := range []string{"a", "b", "c", "d"} {
		got := r.PortsOn(n, id, taken)
		if len(got) != 2 || got[0].GetPublishedPort()+got[1].GetPublishedPort() != 61003+61005 || got[0].GetPublishedPort() == got[1].GetPublishedPort() {
			t.Errorf("%s: %v", id, got)
		}
		if !r.HasPorts(got) {
			t.Errorf("%v are not what was asked for", got)
		}
	}
	if r.Fits(n, 0) != place.HostPort {
		t.Error("a node whose ports are nearly all in use takes another")
	}
}
