//go:build chaos

package tables_test

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// This test is not in `make test`: in one of 19 runs under -race, beside a dockerd that was restarted again and again, a connection stood
// still for 10 s from the middle of the change on. The cause is not known yet. The lab's TestNetworks changes keys under load in each run.

// TestKeysFollowEachOther: both machines make new keys at the same time and drop the old ones, and a connection and datagrams that go all
// the while miss nothing. Then one's meshproxy starts anew, which changes nothing either.
func TestKeysFollowEachOther(t *testing.T) {
	for name, userSpace := range map[string]bool{"kernel": false, "userspace": true} {
		t.Run(name, func(t *testing.T) {
			l := newSealedLab(t, userSpace)
			end := talk(t, l.a.container, l.b.container, "10.0.0.6:8000")
			first := index(t, l.a.host, "shoal-wg1")
			l.rotation++
			l.converge() // both make the next key
			for _, m := range []*sealedMachine{l.a, l.b} {
				if got := m.generations(); !slices.Equal(got, []uint64{1, 2}) {
					t.Fatalf("machine %s has keys %d, want both", m.node, got)
				}
			}
			turned := func() bool { // by the new device on both
				_, err := l.a.index("shoal-wg1")
				_, other := l.b.index("shoal-wg1")
				return err != nil && other != nil
			}
			for deadline := time.Now().Add(20 * time.Second); !turned(); {
				if time.Now().After(deadline) {
					t.Fatalf("keys are %d and %d: the old ones stay", l.a.generations(), l.b.generations())
				}
				l.converge()
				if l.a.clock < time.Minute {
					l.a.clock += 2 * time.Second // the old key is kept half a minute
					l.b.clock += 2 * time.Second
				}
				<-time.After(50 * time.Millisecond)
			}
			second := index(t, l.a.host, "shoal-wg0")
			l.a.ring = l.a.again()
			l.converge()
			if now := index(t, l.a.host, "shoal-wg0"); now != second || now == first {
				t.Errorf("a start of the meshproxy has made the device anew: index %d, was %d", now, second)
			}
			if asked, lost := end(); lost > 0 || asked < 100 {
				t.Errorf("%d datagrams of %d had no answer", lost, asked)
			} else {
				t.Logf("%d datagrams and requests, all answered", asked)
			}
		})
	}
}

// generations are those of a machine's keys.
func (m *sealedMachine) generations() (out []uint64) {
	told, _ := m.ring.Told()
	for _, k := range told.GetTunnelKeys() {
		out = append(out, k.GetGeneration())
	}
	return out
}

// talk keeps asking over one connection and by datagrams until it is ended, and says how many datagrams had no answer.
func talk(t *testing.T, from, to *host, address string) (end func() (asked, unanswered int)) {
	t.Helper()
	servePackets(t, to, address, "echo")
	var ln net.Listener
	to.do(func() (err error) {
		ln, err = net.Listen("tcp", address)
		return err
	})
	t.Cleanup(func() { ln.Close() })
	go func() {
		if c, err := ln.Accept(); err == nil {
			io.Copy(c, c)
		}
	}()
	var stream, packets net.Conn
	from.do(func() (err error) {
		if stream, err = net.DialTimeout("tcp", address, 5*time.Second); err == nil {
			packets, err = net.Dial("udp", address)
		}
		return err
	})
	t.Cleanup(func() { stream.Close(); packets.Close() })
	stop, done := make(chan struct{}), make(chan error, 1)
	var asked, answered int
	go func() {
		buf := make([]byte, 100)
		for {
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(time.Millisecond):
			}
			asked++
			packets.Write([]byte("?"))
			packets.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := packets.Read(buf); err == nil {
				answered++
			}
			stream.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := stream.Write([]byte("hello")); err != nil {
				done <- err
				return
			}
			if _, err := io.ReadFull(stream, buf[:5]); err != nil {
				done <- err
				return
			}
		}
	}()
	return func() (int, int) {
		t.Helper()
		close(stop)
		if err := <-done; err != nil {
			t.Errorf("the connection: %v", err)
		}
		return asked, asked - answered
	}
}
