package forward_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// A task behind a port that speaks PROXY protocol hears who its client is, and what it dialled, before the client's own bytes.
func TestTaskIsToldItsClient(t *testing.T) {
	for _, place := range places() {
		for _, host := range []string{"127.0.0.1", "::1"} {
			t.Run(place.name+" by "+host, func(t *testing.T) {
				r := rigOf(t, place.links)
				p := publish(t, "tcp", r.task("web.1", place.node, func(c net.Conn) {
					defer c.Close()
					_, _ = io.Copy(c, c)
				}))
				p.Proxy = true
				r.apply(p)
				c, err := net.DialTimeout("tcp", at(host, p), 5*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(5 * time.Second))
				io.WriteString(c, "hello")
				c.(*net.TCPConn).CloseWrite()
				got, err := io.ReadAll(c)
				from, to := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
				if want := header2(from, to) + "hello"; string(got) != want || err != nil {
					t.Errorf("the task heard %q, %v; want %q", got, err, want)
				}
			})
		}
	}
}

// header2 is written as the standard's section 2.2 shows it.
func header2(from, to netip.AddrPort) string {
	head, length, transport := "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21", 12, "\x11"
	if from.Addr().Is6() {
		length, transport = 36, "\x21"
	}
	ports := []byte{byte(from.Port() >> 8), byte(from.Port()), byte(to.Port() >> 8), byte(to.Port())}
	return head + transport + "\x00" + string(rune(length)) + string(from.Addr().AsSlice()) + string(to.Addr().AsSlice()) + string(ports)
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

// All connections of one client go to one task, and while that does not answer, to the next.
func TestClientKeepsItsTask(t *testing.T) {
	r := newRig(t)
	var tasks []mesh.Backend
	for i := range 5 {
		tasks = append(tasks, r.task(fmt.Sprintf("web.%d", i+1), []string{"a", "b"}[i%2], nil))
	}
	p := publish(t, "tcp", tasks...)
	p.Affinity = true
	r.apply(p)
	asked := func(from string) string {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
		c, err := d.Dial("tcp", at("127.0.0.1", p))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		name, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(name)
	}
	by, used := map[string]string{}, map[string]bool{}
	for range 3 {
		for i := range 20 {
			from := fmt.Sprintf("127.0.0.%d", i+1)
			name := asked(from)
			if was := by[from]; was != "" && was != name {
				t.Errorf("%s was led to %s, now to %s", from, was, name)
			}
			by[from], used[name] = name, true
		}
	}
	if len(used) < 3 {
		t.Errorf("20 clients were led to %d of 5 tasks", len(used))
	}
	gone := by["127.0.0.1"]
	r.a.Withdraw(gone)
	if name := asked("127.0.0.1"); name == gone {
		t.Errorf("a withdrawn task still answers: %s", name)
	}
}

// A client that gives up in the middle is no client that has said all: its task hears a reset, wherever it runs.
func TestTaskHearsThatItsClientGaveUp(t *testing.T) {
	for _, place := range places() {
		t.Run("on "+place.name, func(t *testing.T) {
			r := rigOf(t, place.links)
			heard, ended := make(chan struct{}), make(chan error, 1)
			p := publish(t, "tcp", r.task("web.1", place.node, func(c net.Conn) {
				defer c.Close()
				_, _ = io.ReadFull(c, make([]byte, 5))
				close(heard)
				_, err := io.ReadAll(c)
				ended <- err
			}))
			r.apply(p)
			c, err := net.DialTimeout("tcp", at("127.0.0.1", p), 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, "half "); err != nil {
				t.Fatal(err)
			}
			<-heard
			if err := errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close()); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the task heard %v, want a reset", err)
			}
		})
	}
}
