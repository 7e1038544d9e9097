package voice_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/testx"
	"github.com/shoalproject/shoal/internal/testx/nstest"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/voice"
)

// A machine with a bridge and three containers on it, locked to their MAC addresses as the agent does: asker, its neighbour and a liar,
// 10.0.0.5 to 7 and fd00::5 to 7.
const world = `
ip link set lo up
ip link add shoalbr4097 type bridge mcast_snooping 0; ip link set shoalbr4097 address 02:42:ff:00:10:01 up
for n in 5 6 7; do
unshare -n sleep 60 >/dev/null 2>&1 & pid=$!
while [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do :; done
ip link add shoalv0000000$n type veth peer name eth1 address 02:42:0a:00:00:0$n netns $pid
ip link set shoalv0000000$n master shoalbr4097 alias 02:42:0a:00:00:0$n up
bridge fdb replace 02:42:0a:00:00:0$n dev shoalv0000000$n master static
bridge link set dev shoalv0000000$n learning off locked on
nsenter -t $pid -n sh -ec "echo 0 >/proc/sys/net/ipv6/conf/eth1/accept_dad; ip link set lo up; ip link set eth1 up; ip addr add 10.0.0.$n/24 dev eth1; ip addr add fd00::$n/64 dev eth1 nodad"
pids="$pids $pid"
done
# The kernel notices in its own time that both ends are up: until then they drop what is sent.
up() { nsenter -t $1 -n ip -o link show eth1 | grep -q 'state UP'; }
for pid in $pids; do until up $pid; do :; done; done
until [ "$(bridge link show | grep -c 'shoalv.*state forwarding')" = 3 ]; do :; done
echo $pids`

const asker, neighbour, liar = 0, 1, 2

// containers runs a test in such a world with the rules in force, and says how to do something in a container.
func containers(t testing.TB, test func(pids []string, part *voice.Part, m *mesh.Model)) {
	t.Helper()
	nstest.Inside(t, func() {
		pids := strings.Fields(nstest.Sh(t, world))
		if len(pids) != 3 {
			return
		}
		defer nstest.Sh(t, "kill "+strings.Join(pids, " "))
		network := &dispatcherv1.MeshNetwork{NetworkId: "net", Vni: 4097}
		for n := 5; n <= 7; n++ {
			network.Entries = append(network.Entries, &dispatcherv1.NetworkEntry{
				TaskId: strconv.Itoa(n), NodeId: "here", Addresses: []string{fmt.Sprintf("10.0.0.%d", n), fmt.Sprintf("fd00::%d", n)},
			})
		}
		m, err := (*mesh.Model)(nil).Apply(&dispatcherv1.EndpointsResponse{
			Version: &typesv1.Version{Epoch: &typesv1.Epoch{Number: 1}}, Full: true, Networks: []*dispatcherv1.MeshNetwork{network},
		})
		if err != nil {
			t.Error(err)
			return
		}
		h := &health{}
		part := voice.New(testx.Env(t), h, "here", func(flush func() error) error { h.changes++; return flush() })
		for range 2 {
			if err := part.Apply(t.Context(), m); err != nil || h.why != "" || h.changes != 1 {
				t.Errorf("%v, told %q, %d changes of which one was needed", err, h.why, h.changes)
			}
		}
		test(pids, part, m)
	})
}

type health struct {
	why     string
	changes int
}

func (h *health) Set(_ string, _ bool, why string) { h.why = why }

// within runs f on a thread in a container's network.
func within(t testing.TB, pid string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		number, _ := strconv.Atoi(pid)
		ns, err := netns.GetFromPid(number)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// wire opens the container's interface for frames of any kind.
func wire(t *testing.T, pid string) *os.File {
	t.Helper()
	var file *os.File
	within(t, pid, func() error {
		all := int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
		if err != nil {
			return err
		}
		eth1, err := net.InterfaceByName("eth1")
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "eth1")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: eth1.Index})
	})
	t.Cleanup(func() { file.Close() })
	return file
}

// mac is that of a container.
func mac(n byte) []byte { return []byte{2, 0x42, 10, 0, 0, n} }

func address(n byte) []byte { return []byte{10, 0, 0, n} }

func address6(n byte) []byte { return netip.MustParseAddr(fmt.Sprintf("fd00::%d", n)).AsSlice() }

// arp is a frame: from whom to whom, what it says of its sender, and whom it asks for or answers.
func arp(from, to []byte, operation byte, sender, address, target []byte) []byte {
	return slices.Concat(to, from, []byte{8, 6}, []byte{0, 1, 8, 0, 6, 4, 0, operation}, sender, address, make([]byte, 6), target)
}

// icmp6 is a frame of neighbour discovery.
func icmp6(from, to, source, target []byte, body []byte) []byte {
	sum := uint32(0)
	for _, part := range [][]byte{source, target, {0, 0, 0, byte(len(body)), 0, 0, 0, 58}, body} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(body[2:], ^uint16(sum))
	return slices.Concat(to, from, []byte{0x86, 0xdd}, []byte{0x60, 0, 0, 0, 0, byte(len(body)), 58, 255}, source, target, body)
}

// lies are frames by which container 7 takes what is for 6, or makes itself a router, in the ears of 5.
func lies() map[string][]byte {
	broadcast := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes := netip.IPv6LinkLocalAllNodes().AsSlice()
	all := []byte{0x33, 0x33, 0, 0, 0, 1}
	solicitation := func(option []byte) []byte {
		return slices.Concat([]byte{135, 0, 0, 0, 0, 0, 0, 0}, address6(5), []byte{1, 1}, option)
	}
	advertisement := func(about byte) []byte {
		return slices.Concat([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, address6(about), []byte{2, 1}, mac(7))
	}
	return map[string][]byte{
		"a question as its neighbour":             arp(mac(7), mac(5), 1, mac(7), address(6), address(5)),
		"a question with its neighbour's MAC":     arp(mac(7), mac(5), 1, mac(6), address(7), address(5)),
		"an answer for its neighbour":             arp(mac(7), mac(5), 2, mac(7), address(6), address(5)),
		"an announcement of its neighbour":        arp(mac(7), broadcast, 1, mac(7), address(6), address(6)),
		"a question as its neighbour by IPv6":     icmp6(mac(7), mac(5), address6(6), address6(5), solicitation(mac(7))),
		"its neighbour's MAC in an IPv6 question": icmp6(mac(7), mac(5), address6(7), address6(5), solicitation(mac(6))),
		"an answer for its neighbour by IPv6":     icmp6(mac(7), mac(5), address6(7), address6(5), advertisement(6)),
		"an announcement by IPv6":                 icmp6(mac(7), all, address6(6), allNodes, advertisement(6)),
		"an advertisement of a router":            icmp6(mac(7), all, address6(7), allNodes, slices.Concat([]byte{134, 0, 0, 0, 64, 0, 7, 8}, make([]byte, 8))),
		"a redirect":                              icmp6(mac(7), mac(5), address6(7), address6(5), slices.Concat([]byte{137, 0, 0, 0, 0, 0, 0, 0}, address6(7), address6(6))),
		"a datagram as its neighbour":             slices.Concat(mac(5), mac(7), []byte{8, 0}, []byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0x66, 0xcf}, address(6), address(5)),
		"a frame with a tag":                      slices.Concat(mac(5), mac(7), []byte{0x81, 0, 0, 0}, arp(mac(7), mac(5), 1, mac(7), address(6), address(5))[12:]),
		"a frame of no protocol":                  slices.Concat(mac(5), mac(7), []byte{0x88, 0xb5}, make([]byte, 46)),
	}
}

// TestLiesAreNotHeard: what a container says with an address that is not its own, or as a router, its neighbours do not hear. What it
// says of itself they do.
func TestLiesAreNotHeard(t *testing.T) {
	containers(t, func(pids []string, part *voice.Part, m *mesh.Model) {
		say, ear := wire(t, pids[liar]), wire(t, pids[asker])
		truth := arp(mac(7), mac(5), 1, mac(7), address(7), address(5))
		hears := func(frame []byte) bool {
			t.Helper()
			for _, f := range [][]byte{frame, truth} { // the second one comes when the first would have come
				if _, err := say.Write(f); err != nil {
					t.Error(err)
				}
			}
			_ = ear.SetReadDeadline(time.Now().Add(patience))
			heard := false
			for buf := make([]byte, 2000); ; {
				n, err := ear.Read(buf)
				if err != nil {
					t.Errorf("nothing is heard of what is true: %v", err)
					return heard
				}
				if slices.Equal(buf[:n], truth) {
					return heard
				}
				heard = heard || bytes.HasSuffix(buf[:n], frame[len(frame)-20:]) // without its tag, where it had one
			}
		}
		for name, lie := range lies() {
			if hears(lie) {
				t.Errorf("%s is heard", name)
			}
		}
		nstest.Sh(t, "nft delete table bridge shoal")
		for name, lie := range lies() {
			if !hears(lie) {
				t.Errorf("%s is not heard where nothing is looked at: it tells nothing of the rules", name)
			}
		}
		for _, somebody := range []string{"true", "nft flush chain bridge shoal neighbours4", "nft flush set bridge shoal owners4", "nft delete rule bridge shoal said6 handle $(nft -a list chain bridge shoal said6 | sed -n 's/.* drop .*handle //p' | head -1)"} {
			nstest.Sh(t, somebody)
			if err := part.Apply(t.Context(), m); err != nil {
				t.Error(err)
			}
			for name, lie := range lies() {
				if hears(lie) {
					t.Errorf("after %q and a look %s is heard", somebody, name)
				}
			}
		}
		if err := voice.Close(); err != nil {
			t.Error(err)
		}
		if left := nstest.Sh(t, "nft list tables"); left != "" {
			t.Errorf("left: %s", left)
		}
	})
}

// TestLostEntryComesBack: a port that is locked to an address whose forwarding entry was lost while nobody looked is silent, and heard again
// after the next process's first look.
func TestLostEntryComesBack(t *testing.T) {
	containers(t, func(pids []string, _ *voice.Part, m *mesh.Model) {
		nstest.Sh(t, "bridge fdb del 02:42:0a:00:00:06 dev shoalv00000006 master")
		within(t, pids[neighbour], func() error { return echo(t, places[0]) })
		within(t, pids[asker], func() error {
			if ask(places[0], 500*time.Millisecond) == nil {
				t.Error("a port without its entry is heard: it is not locked")
			}
			return nil
		})
		next := voice.New(testx.Env(t), &health{}, "here", func(flush func() error) error { return flush() })
		if err := next.Apply(t.Context(), m); err != nil {
			t.Error(err)
		}
		nstest.Sh(t, "nsenter -t "+pids[asker]+" -n ip neigh flush dev eth1")
		within(t, pids[asker], func() error { return ask(places[0], patience) })
	})
}

// places are where the neighbour answers: also by the address that its kernel makes of its MAC address.
var places = []string{"10.0.0.6:9000", "[fd00::6]:9000", "[fe80::42:aff:fe00:6%eth1]:9000"}

// echo answers where the thread is, until the test ends.
func echo(t *testing.T, at string) error {
	conn, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for buf := make([]byte, 10); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buf[:n], from) // who has gone does not wait for it
		}
	}()
	return nil
}

// patience is more than a starved machine takes to answer.
const patience = 10 * time.Second

// ask asks once.
func ask(at string, patience time.Duration) error {
	conn, err := net.Dial("udp", at)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 10))
	return err
}

// TestFloodHarmsNobody: while a container asks for neighbours as fast as it can and answers for all that it hears of, what another one
// asks is answered each time by who it is for. Of the flood a neighbour hears no more than the rate.
func TestFloodHarmsNobody(t *testing.T) {
	containers(t, func(pids []string, _ *voice.Part, _ *mesh.Model) {
		say, ear := wire(t, pids[liar]), wire(t, pids[neighbour])
		flood := [][]byte{
			arp(mac(7), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 1, mac(7), address(7), address(6)),
			arp(mac(7), mac(5), 2, mac(7), address(6), address(5)),
			lies()["an answer for its neighbour by IPv6"],
			icmp6(mac(7), []byte{0x33, 0x33, 0xff, 0, 0, 6}, address6(7), netip.MustParseAddr("ff02::1:ff00:6").AsSlice(),
				slices.Concat([]byte{135, 0, 0, 0, 0, 0, 0, 0}, address6(6), []byte{1, 1}, mac(7))),
		}
		var stop atomic.Bool
		sent := make(chan int)
		begun := time.Now()
		go func() {
			n := 0
			for ; !stop.Load(); n++ {
				_, _ = say.Write(flood[n%len(flood)]) // full speed: what does not fit is lost
			}
			sent <- n
		}()
		heard := make(chan int)
		go func() {
			n := 0
			for buf := make([]byte, 2000); ; {
				size, err := ear.Read(buf)
				if err != nil {
					heard <- n
					return
				}
				if size > 12 && slices.Equal(buf[6:12], mac(7)) && !slices.Equal(buf[:6], mac(6)) {
					n++
				}
			}
		}()
		for _, at := range places {
			within(t, pids[neighbour], func() error { return echo(t, at) })
		}
		for range 20 {
			if t.Failed() { // it has been harmed
				break
			}
			nstest.Sh(t, "nsenter -t "+pids[asker]+" -n ip neigh flush dev eth1")
			for _, at := range places {
				within(t, pids[asker], func() error { return ask(at, patience) })
			}
		}
		stop.Store(true)
		n, took := <-sent, time.Since(begun)
		_ = ear.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		got, most := <-heard, 400+int(200*took.Seconds())+10
		if got > most || n < 4*most {
			t.Errorf("of %d frames in %s a neighbour heard %d, want %d at most", n, took, got, most)
		}
	})
}
