package tables_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/space"
)

// guarded keeps the tables in the containers a1 and b1, whose service takes calls from these.
func (w *world) guarded(t *testing.T) func(*dispatcherv1.Callers) {
	t.Helper()
	spaces := space.New(testx.Env(t), 100)
	for _, name := range []string{"a1", "b1"} {
		var socket *os.File
		w.containers[name].do(func() error {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
			if err == nil {
				err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			}
			socket = os.NewFile(uintptr(fd), name)
			return err
		})
		spaces.Take(name+".0", socket, func() {})
		t.Cleanup(func() { spaces.Drop(name + ".0") })
	}
	var m *mesh.Model
	revision := uint64(0)
	return func(c *dispatcherv1.Callers) {
		t.Helper()
		revision++
		r := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{Revision: revision}, Full: true}
		for name, n := range map[string]string{"a": "1", "b": "2", "c": "3"} {
			r.Machines = append(r.Machines, machineOf(name, n))
		}
		for _, name := range []string{"a1", "b1"} {
			r.LocalTasks = append(r.LocalTasks, &dispatcherv1.LocalTask{TaskId: name, ServiceId: "s", Addresses: []string{inside(name, true), inside(name, false)}})
		}
		if c != nil {
			r.Callers = []*dispatcherv1.ServiceCallers{{ServiceId: "s", Callers: c}}
		}
		var err error
		if m, err = m.Apply(r); err != nil {
			t.Fatal(err)
		}
		if err := spaces.Apply(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

// TestModesRefuseAlike is the suite's part about who may call: once a service names somebody, its published ports take those
// alone and its own tasks, whatever carries them and wherever its tasks are; who may no longer loses what is open.
func TestModesRefuseAlike(t *testing.T) {
	for _, mode := range []string{"kernel", "userspace", "port", "mixed"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			plane := typesv1.Dataplane_DATAPLANE_UNSPECIFIED
			if mode == "port" {
				plane = typesv1.Dataplane_DATAPLANE_USERSPACE
			}
			w.proxied(map[string]string{"userspace": "abc", "mixed": "b"}[mode])
			for _, name := range []string{"a1", "b1"} {
				answer(t, w.containers[name], ":8003", name+" ")
				servePackets(t, w.containers[name], ":8003", name)
				ln := startTalker(t, w.containers[name])
				t.Cleanup(func() { ln.Close() })
				if got, err := ask(w.machines[name[:1]], net.JoinHostPort(inside(name, false), "8003")); err != nil {
					t.Fatalf("%s by its own machine: %q, %v", name, got, err)
				}
			}
			guard := w.guarded(t)
			tell := func(prefixes ...string) {
				s := suite(plane)
				s.Ports = append(s.Ports, &typesv1.PortConfig{PublishedPort: 30019, TargetPort: 8001, Dataplane: plane})
				s.Callers = &dispatcherv1.Callers{Prefixes: prefixes}
				for _, task := range []string{"a1", "b1"} {
					s.Callers.Prefixes = append(s.Callers.Prefixes, inside(task, true), inside(task, false))
				}
				guard(s.GetCallers())
				w.tell(&dispatcherv1.EndpointsResponse{Services: []*dispatcherv1.MeshService{s}})
			}
			tell("198.51.100.8/31", "2001:db8::9")
			for _, entry := range []string{"a", "c"} {
				for _, is4 := range []bool{true, false} {
					w.refusals(t, entry, is4)
				}
			}
			open, err := dialFrom(w.client, wire("9", true)+":0", net.JoinHostPort(wire("3", true), "30019"))
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			if got, err := say(open, "hello"); err != nil {
				t.Fatalf("a client that may call hears %q, %v", got, err)
			}
			tell("192.0.2.0/24")
			if got, err := say(open, "hello"); err == nil || strings.Contains(err.Error(), "timeout") {
				t.Errorf("a client that may no longer call hears %q, %v; want a reset", got, err)
			}
			if got, err := askWithin(w.client, net.JoinHostPort(wire("1", true), "30010"), time.Second); err == nil {
				t.Errorf("a client that may no longer call is answered %q", got)
			}
		})
	}
}

// refusals has all callers ask one entry, several times so that each task has its turn.
func (w *world) refusals(t *testing.T, entry string, is4 bool) {
	t.Helper()
	may := map[string]bool{"client": true, "machine": false, "loopback": false, "c1": false, "a2": false, "a1": entry == "a"}
	for caller, want := range may {
		from, to := w.containers[caller], wire(map[string]string{"a": "1", "c": "3"}[entry], is4)
		switch caller {
		case "client":
			from = w.client
		case "machine":
			from = w.machines[entry]
		case "loopback":
			from, to = w.machines[entry], map[bool]string{true: "127.0.0.1", false: "::1"}[is4]
		}
		for range 3 {
			started := time.Now()
			got, err := askWithin(from, net.JoinHostPort(to, "30010"), 3*time.Second)
			if (err == nil) != want {
				t.Errorf("%s asks %s: %q, %v; want an answer: %t", caller, net.JoinHostPort(to, "30010"), got, err, want)
			}
			if took := time.Since(started); err != nil && took > 2*time.Second {
				t.Errorf("%s hears only after %s that it may not call %s", caller, took, fmt.Sprint(entry))
			}
		}
	}
	if !is4 || entry == "a" {
		return // a datagram that is refused may be answered with silence, and that takes its time
	}
	for caller, from := range map[string]*host{"client": w.client, "c1": w.containers["c1"]} {
		got, err := askPacket(from, net.JoinHostPort(wire(map[string]string{"a": "1", "c": "3"}[entry], is4), "30010"), "")
		if (err == nil) != (caller == "client") {
			t.Errorf("%s asks %s by udp: %q, %v", caller, entry, got, err)
		}
	}
}
