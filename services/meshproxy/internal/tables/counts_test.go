package tables_test

import (
	"fmt"
	"maps"
	"testing"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

// TestConnectionsAreCountedOnce: each new connection counts on the machine that leads it, once, from outside and from the
// machine itself; packets of one that is open, and datagrams of a client that is known, do not; what passes a machine on
// its way to a task there does not; and counts outlive a change of the tasks.
func TestConnectionsAreCountedOnce(t *testing.T) {
	w := newWorld(t)
	counted := func(tasks ...string) {
		t.Helper()
		s := serviceOf(tasks...)
		s.Counted = true
		bound := &dispatcherv1.MeshService{ServiceId: "bound", Name: "bound", Counted: true, Endpoints: s.GetEndpoints(),
			Ports: []*typesv1.PortConfig{{PublishedPort: 30002, TargetPort: 8000, HostIp: "198.51.100.1"}}}
		other := &dispatcherv1.MeshService{ServiceId: "other", Name: "other", Endpoints: s.GetEndpoints(),
			Ports: []*typesv1.PortConfig{{PublishedPort: 30003, TargetPort: 8000}}}
		w.tell(&dispatcherv1.EndpointsResponse{Services: []*dispatcherv1.MeshService{s, bound, other}})
	}
	expect := func(machine string, want map[string]uint64) {
		t.Helper()
		var counts map[kernel.Slot]uint64
		w.machines[machine].do(func() (err error) { counts, err = w.tables[machine].Counts(); return err })
		got, slots := map[string]uint64{}, w.published[machine].Counted()
		for slot, n := range counts {
			if slots[slot] == "" {
				t.Errorf("machine %s counts %v, which is nobody's", machine, slot)
			}
			if n > 0 {
				got[slots[slot]+" "+slot.Set+" "+slot.Key] = n
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("machine %s counted %v, want %v", machine, got, want)
		}
	}
	ask := func(from *host, network, address string) {
		t.Helper()
		if _, err := asks(from, network, address); err != nil {
			t.Fatal(err)
		}
	}
	counted("a1", "b1")
	for range 5 { // half of them by the other machine's task
		ask(w.client, "tcp", "198.51.100.1:30000")
	}
	ask(w.client, "tcp", "[2001:db8::1]:30000")
	ask(w.machines["a"], "tcp", "198.51.100.1:30000")
	ask(w.containers["a2"], "tcp", "198.51.100.1:30000")
	for range 3 {
		ask(w.client, "tcp", "198.51.100.1:30002")
		ask(w.client, "tcp", "198.51.100.1:30003")
	}
	want := map[string]uint64{"web counted4 tcp 30000": 7, "web counted6 tcp 30000": 1, "bound countedat4 198.51.100.1 tcp 30002": 3}
	expect("a", want)
	expect("b", map[string]uint64{})

	talk := startTalker(t, w.containers["b1"])
	defer talk.Close()
	counted("b1")
	c, err := dialFrom(w.client, "198.51.100.9:40100", "198.51.100.1:30001")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 20 {
		if _, err := say(c, fmt.Sprintf("%d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		if _, err := askPacket(w.client, "198.51.100.1:30000", "198.51.100.9:40101"); err != nil {
			t.Fatal(err)
		}
	}
	want["web counted4 tcp 30001"], want["web counted4 udp 30000"] = 1, 1
	expect("a", want)

	// A port that nobody answers leads nothing; one that is not counted any more has no count.
	counted()
	expect("a", map[string]uint64{})
	w.publish("a1")
	expect("a", map[string]uint64{})
}
