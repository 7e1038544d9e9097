package forward_test

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// TestOneClientFillsNotTheBacklog: what one client sends while its task is sought takes half of a port's room and no more, another
// client is served meanwhile, and all room is given back.
func TestOneClientFillsNotTheBacklog(t *testing.T) {
	r := newRig(t)
	const room, size = 10_000, 1000
	r.a.Backlog(room)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it takes links and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r.peers = map[string][]string{"b": {silent.Addr().String()}}
	away := mesh.Backend{Task: "udp.1", Node: "b", Address: r.dead("udp.1", "b").Address}
	p := publish(t, "udp", away, r.packets("udp.2", "a"))
	r.apply(p)
	greedy, err := net.Dial("udp", at("127.0.0.1", p))
	if err != nil {
		t.Fatal(err)
	}
	defer greedy.Close()
	var link net.Conn
	for range 12 {
		if _, err := greedy.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if link == nil { // its task is sought now: the next client's turn is at the other one
			if link, err = silent.Accept(); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	other, err := d.Dial("udp", at("127.0.0.1", p))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if got := exchange(t, other, "x"); got != "udp.2:x" { // and all that was sent before was taken or dropped
		t.Errorf("another client heard %q", got)
	}
	if waiting := r.a.Waiting(); waiting > room/2 {
		t.Errorf("%d bytes of one client wait, of %d in all", waiting, room)
	}
	link.Close()
	for end := time.Now().Add(10 * time.Second); r.a.Waiting() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are still counted", r.a.Waiting())
		}
	}
}
