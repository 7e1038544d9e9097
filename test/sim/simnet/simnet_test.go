package simnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/sim/simnet"
)

// two is a network of hosts a (10.0.0.1) and b (10.0.0.2) inside a bubble.
func two(t *testing.T, f func(t *testing.T, n *simnet.Net, a, b *simnet.Host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(1)
		defer n.Close()
		f(t, n, n.Host("a", "10.0.0.1"), n.Host("b", "10.0.0.2", "fd00::2"))
	})
}

func listen(t *testing.T, on run.Network, network, addr string) net.Listener {
	t.Helper()
	l, err := on.Listen(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dial(t *testing.T, from run.Network, network, addr string) net.Conn {
	t.Helper()
	c, err := from.Dial(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// connect gives both ends of a connection from a to b.
func connect(t *testing.T, from run.Network, to run.Network, addr string) (client, server net.Conn) {
	t.Helper()
	l := listen(t, to, "tcp", addr)
	client = dial(t, from, "tcp", addr)
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatalf("write %q: %v", text, err)
	}
}

// expect reads exactly the text, within d of virtual time.
func expect(t *testing.T, c net.Conn, d time.Duration, text string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(d))
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != text {
		t.Fatalf("read %q, %v; want %q", buf, err, text)
	}
}

// silent says that nothing, not even an error, arrives within d.
func silent(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(d))
	if k, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v; want silence", k, err)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestStreamCarriesBytesAddressesAndHalfClose(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, server := connect(t, a, b, "10.0.0.2:80")
		if got := server.RemoteAddr().(*net.TCPAddr).IP.String(); got != "10.0.0.1" {
			t.Errorf("server sees client at %s", got)
		}
		if got := client.RemoteAddr().String(); got != "10.0.0.2:80" {
			t.Errorf("client's remote is %s", got)
		}
		if client.LocalAddr().String() != server.RemoteAddr().String() {
			t.Errorf("local %s, seen as %s", client.LocalAddr(), server.RemoteAddr())
		}
		send(t, client, "ping")
		if err := client.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(server); err != nil || string(all) != "ping" {
			t.Fatalf("read %q, %v", all, err)
		}
		send(t, server, "pong") // the other direction lives on
		expect(t, client, time.Second, "pong")
		if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after CloseWrite: %v", err)
		}
		server.Close()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read after the peer's close: %v", err)
		}
	})
}

func TestWriteAfterPeerClosedEndsInReset(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, server := connect(t, a, b, "10.0.0.2:80")
		server.Close()
		send(t, client, "too late") // the kernel takes it, and hears of the reset afterwards
		if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("second write: %v", err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
	})
}

func TestDeadlineEndsWaitingReadAndFullWrite(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, server := connect(t, a, b, "10.0.0.2:80")
		start := time.Now()
		silent(t, client, 3*time.Second)
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("read waited %s", d)
		}
		_ = client.SetWriteDeadline(time.Now().Add(time.Second))
		k, err := client.Write(make([]byte, simnet.Window+1))
		if k != simnet.Window || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v; want the window and a timeout", k, err)
		}
		_ = client.SetWriteDeadline(time.Time{})
		go io.Copy(io.Discard, server)
		send(t, client, "room again")
		client.Close()
	})
}

func TestListenAddresses(t *testing.T) {
	type row struct {
		bind, from, to string
		ok             bool
	}
	rows := []row{
		{":80", "a", "10.0.0.2:80", true},
		{":80", "a", "[fd00::2]:80", true},
		{":80", "b", "127.0.0.1:80", true},
		{":80", "b", "localhost:80", true},
		{":80", "a", "b:80", true},
		{":80", "a", "10.0.0.2:81", false},
		{"0.0.0.0:80", "a", "10.0.0.2:80", true},
		{"0.0.0.0:80", "a", "[fd00::2]:80", false},
		{"10.0.0.2:80", "a", "10.0.0.2:80", true},
		{"10.0.0.2:80", "b", "127.0.0.1:80", false},
		{"127.0.0.1:80", "b", "127.0.0.1:80", true},
		{"127.0.0.1:80", "a", "10.0.0.2:80", false},
		{"127.0.0.1:80", "a", "127.0.0.1:80", false},
	}
	for _, r := range rows {
		t.Run(fmt.Sprintf("%s from %s to %s", r.bind, r.from, r.to), func(t *testing.T) {
			two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
				listen(t, b, "tcp", r.bind)
				c, err := n.Host(r.from).Dial(t.Context(), "tcp", r.to)
				if r.ok && err != nil || !r.ok && !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("got %v", err)
				}
				if err == nil {
					c.Close()
				}
			})
		})
	}
}

func TestBindRefusals(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		l := listen(t, a, "tcp", "10.0.0.1:80")
		for addr, want := range map[string]error{
			"10.0.0.1:80": syscall.EADDRINUSE, ":80": syscall.EADDRINUSE, "10.0.0.2:81": syscall.EADDRNOTAVAIL,
		} {
			if _, err := a.Listen(t.Context(), "tcp", addr); !errors.Is(err, want) {
				t.Errorf("listen on %s: %v, want %v", addr, err, want)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		listen(t, a, "tcp", ":80")
		one, two := listen(t, a, "tcp", ":0"), listen(t, a, "tcp", ":0")
		if one.Addr().String() == two.Addr().String() {
			t.Errorf("port 0 gave %s twice", one.Addr())
		}
		_, err := a.Dial(t.Context(), "tcp", "nowhere:80")
		if dns := (*net.DNSError)(nil); !errors.As(err, &dns) || !dns.IsNotFound {
			t.Errorf("unknown name: %v", err)
		}
		for _, bad := range []string{"10.0.0.1", "10.0.0.1:http", "10.0.0.1:70000"} {
			if _, err := a.Dial(t.Context(), "tcp", bad); err == nil {
				t.Errorf("dial %q worked", bad)
			}
		}
	})
}

func TestUnixSocketIsItsHostsOwn(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		l := listen(t, a, "unix", "/run/shoal/agent.sock")
		c := dial(t, a, "unix", "/run/shoal/agent.sock")
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		send(t, c, "hello")
		expect(t, s, time.Second, "hello")
		if _, err := b.Dial(t.Context(), "unix", "/run/shoal/agent.sock"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("from the other host: %v", err)
		}
	})
}

func TestDialHangsUntilContextEndsWhereNobodyAnswers(t *testing.T) {
	faults := map[string]func(n *simnet.Net){
		"partition":           func(n *simnet.Net) { n.Partition([]string{"a"}, []string{"b"}, false) },
		"one way there":       func(n *simnet.Net) { n.Partition([]string{"a"}, []string{"b"}, true) },
		"one way back":        func(n *simnet.Net) { n.Partition([]string{"b"}, []string{"a"}, true) },
		"isolated":            func(n *simnet.Net) { n.Isolate("b") },
		"crashed":             func(n *simnet.Net) { n.Crash("b") },
		"paused":              func(n *simnet.Net) { n.Pause("b") },
		"the dialer's paused": func(n *simnet.Net) { n.Pause("a") },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
				listen(t, b, "tcp", ":80")
				fault(n)
				start := time.Now()
				_, err := a.Dial(within(t, 5*time.Second), "tcp", "10.0.0.2:80")
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
					t.Errorf("after %s: %v", time.Since(start), err)
				}
			})
		})
	}
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		start := time.Now()
		_, err := a.Dial(t.Context(), "tcp", "10.0.0.77:80") // nobody has this address
		if !errors.Is(err, syscall.ETIMEDOUT) || time.Since(start) != 127*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
	})
}

func TestDialGoesOnWhenTheFaultEnds(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		listen(t, b, "tcp", ":80")
		n.Isolate("b")
		time.AfterFunc(3*time.Second, func() { n.Heal() })
		start := time.Now()
		c, err := a.Dial(within(t, time.Minute), "tcp", "b:80")
		if err != nil || time.Since(start) != 3*time.Second {
			t.Fatalf("after %s: %v", time.Since(start), err)
		}
		c.Close()
	})
}
