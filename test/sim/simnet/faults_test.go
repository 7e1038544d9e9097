package simnet_test

import (
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/test/sim/simnet"
)

func TestPartitionHoldsBytesUntilHealed(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, server := connect(t, a, b, "10.0.0.2:80")
		n.Partition([]string{"a"}, []string{"b"}, false)
		send(t, client, "one ")
		send(t, client, "two")
		silent(t, server, time.Hour)
		n.Heal("a")
		expect(t, server, time.Second, "one two")
		send(t, server, "back")
		expect(t, client, time.Second, "back")
		if n.Stats().Stalled == 0 {
			t.Error("the cut has hit something and was not counted")
		}
	})
}

func TestOneWayPartitionLetsTheOtherWayThrough(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, server := connect(t, a, b, "10.0.0.2:80")
		n.Partition([]string{"a"}, []string{"b"}, true)
		send(t, client, "lost for now")
		silent(t, server, time.Minute)
		send(t, server, "heard")
		expect(t, client, time.Second, "heard")
	})
}

func TestPartitionDoesNotTouchThirdHosts(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		c := n.Host("c", "10.0.0.3")
		client, server := connect(t, c, b, "10.0.0.2:80")
		n.Partition([]string{"a"}, []string{"b"}, false)
		send(t, client, "through")
		expect(t, server, time.Second, "through")
		n.Isolate("c")
		send(t, client, "later")
		silent(t, server, time.Minute)
		n.Heal("c") // b is still cut off from a
		expect(t, server, time.Second, "later")
		if _, err := a.Dial(within(t, time.Second), "tcp", "b:80"); err == nil {
			t.Error("healing c has healed a and b")
		}
	})
}

func TestCrashIsSilenceThenReset(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, server := connect(t, a, b, "10.0.0.2:80")
		n.Crash("b")
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the dead host's own handle: %v", err)
		}
		send(t, client, "anybody?")
		silent(t, client, time.Hour)
		n.Boot("b")
		if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read after boot: %v, want a reset", err)
		}
		if _, err := a.Dial(t.Context(), "tcp", "b:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a booted host has listeners of before: %v", err)
		}
		listen(t, b, "tcp", ":80") // and may listen again
		dial(t, a, "tcp", "b:80")
	})
}

func TestCrashBehindAPartitionIsAResetAfterTheHealing(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, _ := connect(t, a, b, "10.0.0.2:80")
		n.Partition([]string{"a"}, []string{"b"}, false)
		send(t, client, "x")
		n.Crash("b")
		n.Boot("b")
		silent(t, client, time.Hour)
		n.Heal()
		_ = client.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after heal: %v", err)
		}
	})
}

func TestIdleConnectionToARebootedHostIsResetByKeepalive(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, _ := connect(t, a, b, "10.0.0.2:80")
		n.Crash("b")
		time.Sleep(time.Minute)
		n.Boot("b")
		start := time.Now()
		_, err := client.Read(make([]byte, 1))
		if !errors.Is(err, syscall.ECONNRESET) || time.Since(start) != 15*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
	})
}

func TestKilledProcessClosesItsSocketsAlone(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		victim := b.Sockets()
		client, server := connect(t, a, victim, "10.0.0.2:80")
		other, _ := connect(t, a, b, "10.0.0.2:81")
		done := make(chan error)
		go func() { _, err := server.Read(make([]byte, 1)); done <- err }()
		synctest.Wait()
		victim.Kill()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the dead process's read: %v", err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the peer's read: %v", err)
		}
		if _, err := a.Dial(t.Context(), "tcp", "b:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial to the dead process: %v", err)
		}
		if _, err := victim.Dial(t.Context(), "tcp", "10.0.0.1:1"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial by the dead process: %v", err)
		}
		if _, err := victim.Listen(t.Context(), "tcp", ":0"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("listen by the dead process: %v", err)
		}
		silent(t, other, time.Minute) // no EOF: the other process lives
	})
}

func TestCutResetsBothEnds(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, server := connect(t, a, b, "10.0.0.2:80")
		if got := n.Conns([]string{"a"}, nil); got != 1 {
			t.Errorf("%d connections", got)
		}
		if got := n.Cut([]string{"b"}, []string{"a"}); got != 1 {
			t.Errorf("cut %d connections", got)
		}
		for _, c := range []net.Conn{client, server} {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v", err)
			}
		}
		dial(t, a, "tcp", "b:80")
	})
}

func TestPauseHoldsDeliveryBothWays(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, server := connect(t, a, b, "10.0.0.2:80")
		n.Pause("b")
		send(t, client, "in")
		send(t, server, "out")
		silent(t, server, time.Minute)
		silent(t, client, time.Minute)
		n.Resume("b")
		expect(t, server, time.Second, "in")
		expect(t, client, time.Second, "out")
	})
}

func TestDelayKeepsOrderAndCountsBothWaysOfADial(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		n.Delay(nil, nil, 50*time.Millisecond, 30*time.Millisecond)
		start := time.Now()
		client, server := connect(t, a, b, "10.0.0.2:80")
		if d := time.Since(start); d < 100*time.Millisecond || d > 160*time.Millisecond {
			t.Errorf("the dial took %s", d)
		}
		start = time.Now()
		for _, s := range []string{"1", "2", "3", "4", "5", "6", "7", "8"} {
			send(t, client, s)
		}
		expect(t, server, time.Second, "12345678")
		if d := time.Since(start); d < 50*time.Millisecond || d > 80*time.Millisecond {
			t.Errorf("the bytes took %s", d)
		}
		late := n.Host("late", "10.0.0.9")
		start = time.Now()
		dial(t, late, "tcp", "b:80")
		if time.Since(start) < 100*time.Millisecond {
			t.Error("a host made later has no delay")
		}
	})
}

func TestLossDelaysStreamsAndDropsDatagrams(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, server := connect(t, a, b, "10.0.0.2:80")
		n.Loss([]string{"a"}, []string{"b"}, 0.3)
		start := time.Now()
		for range 50 {
			send(t, client, "x")
			expect(t, server, time.Minute, "x")
		}
		if time.Since(start) < 200*time.Millisecond {
			t.Error("no segment was retransmitted")
		}
		in, err := b.ListenPacket(t.Context(), "udp", ":53")
		if err != nil {
			t.Fatal(err)
		}
		out := dial(t, a, "udp", "b:53")
		for range 200 {
			send(t, out, "q")
		}
		got := 0
		_ = in.SetReadDeadline(time.Now().Add(time.Second))
		for {
			if _, _, err := in.ReadFrom(make([]byte, 9)); err != nil {
				break
			}
			got++
		}
		if got < 110 || got > 170 {
			t.Errorf("%d of 200 datagrams arrived at a loss of 0.3", got)
		}
	})
}

func TestDatagramsAndTheirAddresses(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		srv, err := b.ListenPacket(t.Context(), "udp", ":53")
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, a, "udp", "10.0.0.2:53")
		send(t, c, "question")
		buf := make([]byte, 64)
		k, from, err := srv.ReadFrom(buf)
		if err != nil || string(buf[:k]) != "question" || from.String() != c.LocalAddr().String() {
			t.Fatalf("%q from %v, %v", buf[:k], from, err)
		}
		if _, err := srv.WriteTo([]byte("answer"), from); err != nil {
			t.Fatal(err)
		}
		expect(t, c, time.Second, "answer")
		n.Isolate("a")
		send(t, c, "gone")
		n.Heal()
		silentPacket(t, srv, time.Minute) // a datagram over a cut does not come later
		n.Crash("b")
		if _, _, err := srv.ReadFrom(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read on a dead host: %v", err)
		}
	})
}

func silentPacket(t *testing.T, c net.PacketConn, d time.Duration) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(d))
	if k, _, err := c.ReadFrom(make([]byte, 1)); err == nil {
		t.Fatalf("read %d bytes; want silence", k)
	}
}

func TestCrashEndsEverythingThatWaits(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		l := listen(t, a, "tcp", ":1")
		client, _ := connect(t, a, b, "10.0.0.2:80")
		n.Isolate("c")
		errc := make(chan error, 4)
		go func() { _, err := l.Accept(); errc <- err }()
		go func() { _, err := client.Read(make([]byte, 1)); errc <- err }()
		go func() { _, err := client.Write(make([]byte, 2*simnet.Window)); errc <- err }()
		go func() { _, err := a.Dial(t.Context(), "tcp", "10.0.0.77:1"); errc <- err }()
		synctest.Wait()
		n.Crash("a")
		for range 4 {
			if err := <-errc; !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestSameSeedSameNetwork(t *testing.T) {
	arrivals := func() (at []time.Duration) {
		two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
			n.Delay(nil, nil, time.Millisecond, time.Second)
			client, server := connect(t, a, b, "10.0.0.2:80")
			start := time.Now()
			for range 20 {
				send(t, client, "x")
				expect(t, server, time.Minute, "x")
				at = append(at, time.Since(start))
			}
		})
		return at
	}
	if first, second := arrivals(), arrivals(); !slices.Equal(first, second) {
		t.Errorf("%v\n%v", first, second)
	}
}
