package forward_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// fromClient dials as another client of this machine.
func fromClient(t *testing.T, source, address string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.Dial("tcp", address)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil // refused as soon as it was taken
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// talks says whether what is said on a connection is answered.
func talks(c net.Conn) bool {
	if c == nil {
		return false
	}
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "x"); err != nil {
		return false
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err == nil
}

// ended says that a connection was ended.
func ended(c net.Conn, within time.Duration) bool {
	c.SetDeadline(time.Now().Add(within))
	_, err := c.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestOneClientTakesNotAllPlaces: however many connections one client has, others are served.
func TestOneClientTakesNotAllPlaces(t *testing.T) {
	r := newRig(t)
	r.a.Bound(16, time.Hour)
	p := publish(t, "tcp", r.task("t", "a", repeat))
	r.apply(p)
	var served int
	for range 20 {
		if talks(fromClient(t, "127.0.0.1", at("127.0.0.1", p))) {
			served++
		}
	}
	if served != 8 {
		t.Errorf("one client has %d of 16 places, want half", served)
	}
	for i := range 3 {
		if !talks(fromClient(t, fmt.Sprintf("127.0.0.%d", 2+i), at("127.0.0.1", p))) {
			t.Error("another one is not served")
		}
	}
}

// TestSilentClientsGiveWay: what nobody says anything on keeps no place from others for long, and what is in use is kept.
func TestSilentClientsGiveWay(t *testing.T) {
	r := newRig(t)
	r.a.Bound(4, 100*time.Millisecond)
	p := publish(t, "tcp", r.task("t", "a", repeat))
	r.apply(p)
	used := fromClient(t, "127.0.0.1", at("127.0.0.1", p))
	if !talks(used) {
		t.Fatal("the first client is not served")
	}
	var silent []net.Conn
	for i := range 3 {
		silent = append(silent, fromClient(t, fmt.Sprintf("127.0.0.%d", 10+i), at("127.0.0.1", p)))
	}
	if !talks(fromClient(t, "127.0.0.20", at("127.0.0.1", p))) {
		t.Error("silent clients keep all places")
	}
	for _, c := range silent {
		if !ended(c, 5*time.Second) {
			t.Error("a silent one was not ended")
		}
	}
	if !talks(used) {
		t.Error("one that was in use was ended")
	}
}

// TestWhoCameByAnotherAddress is held to what its port says of callers, also when that answers elsewhere by now, or was away meanwhile.
func TestWhoCameByAnotherAddress(t *testing.T) {
	r := newRig(t)
	p := publish(t, "tcp", r.task("t", "a", repeat))
	r.apply(p)
	first, second := fromClient(t, "127.0.0.1", at("127.0.0.2", p)), fromClient(t, "127.0.0.3", at("127.0.0.2", p))
	if !talks(first) || !talks(second) {
		t.Fatal("not served")
	}
	p.Bind = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	r.apply(p)
	r.apply()
	r.apply(p)
	if !talks(first) || !talks(second) {
		t.Fatal("a port that moves ends connections")
	}
	p.Callers = &mesh.Callers{Addresses: map[netip.Addr]struct{}{netip.MustParseAddr("127.0.0.1"): {}}}
	r.apply(p)
	if !ended(second, 5*time.Second) {
		t.Error("who may not call any more goes on")
	}
	if !talks(first) {
		t.Error("who may is cut")
	}
}

// TestSilenceIsNoReasonWhilePlacesAreFree.
func TestSilenceIsNoReasonWhilePlacesAreFree(t *testing.T) {
	r := newRig(t)
	r.a.Bound(16, time.Millisecond)
	p := publish(t, "tcp", r.task("t", "a", repeat))
	r.apply(p)
	c := fromClient(t, "127.0.0.1", at("127.0.0.1", p))
	for range 3 {
		if !talks(fromClient(t, "127.0.0.2", at("127.0.0.1", p))) {
			t.Fatal("not served")
		}
	}
	if ended(c, 100*time.Millisecond) || !talks(c) {
		t.Error("a connection was ended though places are free")
	}
}

// TestWaitingSessionsHaveNoBuffers: a UDP session that waits for its task holds no room for what may come.
func TestWaitingSessionsHaveNoBuffers(t *testing.T) {
	r := newRig(t)
	p := publish(t, "udp", r.packets("t", "a"))
	r.apply(p)
	const sessions = 50
	for range sessions {
		c, err := net.Dial("udp", at("127.0.0.1", p))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if !talks(c) {
			t.Fatal("a session is not served")
		}
	}
	for end := time.Now().Add(5 * time.Second); r.a.Rooms() > 0; runtime.Gosched() { // the last answer has just come
		if time.Now().After(end) {
			t.Fatalf("%d sessions that wait hold %d buffers", sessions, r.a.Rooms())
		}
	}
}

// TestPipesOfTheSilentAreUsedAgain: a connection that has carried much and is silent now keeps no pipe from the next one.
func TestPipesOfTheSilentAreUsedAgain(t *testing.T) {
	r := newRig(t)
	p := publish(t, "tcp", r.task("t", "a", func(c net.Conn) {
		defer c.Close()
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) // a task without pipes of its own
	}))
	r.apply(p)
	had := pipes(t)
	const tries = 40
	for range tries {
		c := fromClient(t, "127.0.0.1", at("127.0.0.1", p))
		c.SetDeadline(time.Now().Add(5 * time.Second))
		go func() { _, _ = c.Write(make([]byte, 1<<20)) }()
		if _, err := io.ReadFull(c, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if !talks(c) {
			t.Fatal("a connection that was busy is not served any more")
		}
		now := pipes(t)
		if now <= had {
			return
		}
		had = now
	}
	t.Errorf("each of %d connections, which all are silent but one, has pipes of its own", tries)
}

// pipes counts the ends that this process has.
func pipes(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, "pipe:") {
			n++
		}
	}
	return n
}

func repeat(c net.Conn) { _, _ = io.Copy(c, c); c.Close() }
