package tables_test

import (
	"testing"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// withTasks tells machine a of its containers' tasks, of which a1 is on the network n alone.
func (w *world) withTasks(internal bool) {
	w.t.Helper()
	r := &dispatcherv1.EndpointsResponse{Networks: []*dispatcherv1.MeshNetwork{{NetworkId: "n", Name: "n", Vni: 4097, Internal: internal}}}
	for name, networks := range map[string][]string{"a1": {"n"}, "a2": nil} {
		r.LocalTasks = append(r.LocalTasks, &dispatcherv1.LocalTask{TaskId: name, Addresses: []string{inside(name, true), inside(name, false)}, NetworkIds: networks})
	}
	w.tell(r)
}

// TestContainersSpeakForThemselves: what a container sends with the address of a stranger, of another machine's container or of
// its neighbour reaches nobody.
func TestContainersSpeakForThemselves(t *testing.T) {
	w := newWorld(t)
	w.withTasks(false)
	liar := w.containers["a2"]
	servePackets(t, w.client, "198.51.100.9:9000", "outside")
	servePackets(t, w.client, "[2001:db8::9]:9000", "outside")
	for _, to := range []string{"198.51.100.9:9000", "[2001:db8::9]:9000"} {
		if _, err := askPacket(liar, to, ""); err != nil {
			t.Fatalf("%s from the container's own address: %v", to, err)
		}
	}
	for name, tc := range map[string]struct {
		four, six string
	}{
		"its neighbour's":   {inside("a1", true), inside("a1", false)},
		"another machine's": {inside("b1", true), inside("b1", false)},
		"a stranger's":      {"192.0.2.7", "2001:db8:7::7"},
	} {
		t.Run(name, func(t *testing.T) {
			liar.do(func() error {
				if err := addNoDAD("lo", tc.six+"/128"); err != nil {
					return err
				}
				return addNoDAD("lo", tc.four+"/32")
			})
			for _, at := range []struct{ to, from string }{{"198.51.100.9:9999", tc.four + ":0"}, {"[2001:db8::9]:9999", "[" + tc.six + "]:0"}} {
				if hears(t, w.client, liar, at.to, at.from) {
					t.Errorf("what is sent to %s from %s arrives", at.to, at.from)
				}
			}
		})
	}
}

// TestUnknownContainerIsSilent: of a container that is not in the tables yet nobody knows what networks it is on, and so it reaches
// nothing. It does as soon as they have it.
func TestUnknownContainerIsSilent(t *testing.T) {
	w := newWorld(t)
	servePackets(t, w.client, "198.51.100.9:9000", "outside")
	w.tell(&dispatcherv1.EndpointsResponse{RemovedLocalTasks: []string{"a1"}})
	for _, to := range []string{"198.51.100.9:9999", "10.128.1.6:9999"} {
		if host := map[string]*host{"198.51.100.9:9999": w.client, "10.128.1.6:9999": w.containers["a2"]}[to]; hears(t, host, w.containers["a1"], to) {
			t.Errorf("it reaches %s", to)
		}
	}
	w.withTasks(false)
	if got, err := askPacket(w.containers["a1"], "198.51.100.9:9000", ""); err != nil {
		t.Errorf("when it is known: %q, %v", got, err)
	}
}

// TestEnclosed: a container whose networks are all internal begins nothing outside them, neither to the outside, its machine, its
// neighbours nor by a published port; it asks the name server, and answers who comes by a published port.
func TestEnclosed(t *testing.T) {
	w := newWorld(t)
	w.publish("a1")
	servePackets(t, w.client, "198.51.100.9:9000", "outside")
	servePackets(t, w.machines["a"], "10.128.1.1:9000", "machine")
	servePackets(t, w.machines["a"], "169.254.53.53:53", "names")
	reaches := func(from, to string) bool {
		t.Helper()
		got, err := askPacket(w.containers[from], to, "")
		return err == nil && got != ""
	}
	for _, internal := range []bool{false, true} {
		w.withTasks(internal)
		for _, to := range []string{"198.51.100.9:9000", "10.128.1.1:9000", "10.128.1.6:8000", "198.51.100.1:30000", "198.51.100.2:30000"} {
			if got := reaches("a1", to); got == internal {
				t.Errorf("on a network with internal=%t %s is reached: %t", internal, to, got)
			}
			if !reaches("a2", to) {
				t.Errorf("its neighbour does not reach %s", to)
			}
		}
		if !reaches("a1", "169.254.53.53:53") {
			t.Errorf("with internal=%t the name server is not reached", internal)
		}
		if got, err := asks(w.client, "tcp", "198.51.100.2:30000"); got != "198.51.100.9" || err != nil {
			t.Errorf("by a published port the task saw %q, %v", got, err)
		}
	}
}

// TestLinkLocalLeadsNowhere: by a link-local address, which tells nobody which container asks, none reaches its machine.
func TestLinkLocalLeadsNowhere(t *testing.T) {
	w := newWorld(t)
	c, gateway := w.containers["a2"], gatewayOf("a", false)
	servePackets(t, w.machines["a"], "["+gateway+"]:9000", "machine")
	if got, err := askPacket(c, "["+gateway+"]:9000", ""); err != nil {
		t.Fatalf("a container asks its machine with its own address: %q, %v", got, err)
	}
	c.do(func() error { return addNoDAD("eth0", "fe80::99/64") })
	if hears(t, w.machines["a"], c, "["+gateway+"]:9999", "[fe80::99%eth0]:0") {
		t.Error("a container reaches its machine by a link-local address")
	}
}
