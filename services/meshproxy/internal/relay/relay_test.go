package relay_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/testx"
	"github.com/shoalproject/shoal/services/meshproxy/internal/relay"
)

// rig is a relay that runs.
type rig struct {
	t *testing.T
	r *relay.Relay
	l net.Listener
	// far joins by a link; nil: socket to socket.
	far *far
}

func newRig(t *testing.T) *rig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, r: relay.New(), l: l}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.r.Run(ctx, testx.Env(t).Log) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, l.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// wire is both ends of a connection. Small ones have so little room in the kernel that a writer soon has to wait.
func (r *rig) wire(small bool) (near, far *net.TCPConn) {
	r.t.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if small {
			fault := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
			err = errors.Join(err, fault)
		}
		return err
	}}
	c, err := d.DialContext(r.t.Context(), "tcp", r.l.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := r.l.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	near, far = c.(*net.TCPConn), s.(*net.TCPConn)
	if small {
		r.t.Cleanup(func() { near.Close() })
		if err := errors.Join(near.SetWriteBuffer(4096), far.SetWriteBuffer(4096)); err != nil {
			r.t.Fatal(err)
		}
	}
	r.t.Cleanup(func() { near.Close() })
	for _, c := range []net.Conn{near, far} {
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			r.t.Fatal(err)
		}
	}
	return near, far
}

// joint is what the rig knows of two ends whose wires are joined.
type joint struct {
	done  <-chan struct{}
	reset func()
}

// joined is two ends whose wires the relay has joined.
func (r *rig) joined(small bool) (a, b *net.TCPConn, p joint) {
	r.t.Helper()
	if r.far != nil {
		return r.far.joined(small)
	}
	a, far := r.wire(small)
	b, beyond := r.wire(small)
	pair, err := r.r.Join(far, beyond, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return a, b, joint{pair.Done(), pair.Reset}
}

// said is what an end says, and how.
type said struct {
	data   []byte
	pieces int           // the most that it says at once
	heed   bool          // it says its last half only when it has heard everything
	heard  chan struct{} // closed then
}

// TestWhatOneSaysTheOtherHears whatever its size and in whatever pieces, both ways at once, until each has half-closed at a time of
// its own: at once, or after it has heard all of the other.
func TestWhatOneSaysTheOtherHears(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		rng, bytesOf := rand.New(rand.NewPCG(1, 2)), rand.NewChaCha8([32]byte{1})
		for i := range 60 {
			small := i%3 == 0
			a, b, p := r.joined(small)
			var all sync.WaitGroup
			sides := [2]said{}
			for j := range sides {
				size := []int{0, 1, 1000, 16 << 10, 100_000, 2 << 20}[rng.IntN(6)]
				if small {
					size = min(size, 200_000)
				}
				sides[j] = said{data: make([]byte, size), pieces: 1 + rng.IntN(1<<(4+rng.IntN(14))), heard: make(chan struct{})}
				_, _ = bytesOf.Read(sides[j].data) // it always fills it
				if size > 50_000 {
					sides[j].pieces = max(sides[j].pieces, 2000)
				}
			}
			sides[rng.IntN(2)].heed = rng.IntN(2) == 0
			for j, conn := range []*net.TCPConn{a, b} {
				own, other := &sides[j], &sides[1-j]
				all.Go(func() { own.say(t, conn) })
				all.Go(func() {
					defer close(own.heard)
					if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, other.data) {
						t.Errorf("run %d, small %v: %d bytes of %d arrived, %v", i, small, len(got), len(other.data), err)
					}
				})
			}
			all.Wait()
			select {
			case <-p.done:
			case <-time.After(10 * time.Second):
				t.Fatal("a pair whose ends have said all is still there")
			}
		}
	})
}

func (s *said) say(t *testing.T, conn *net.TCPConn) {
	for rest := s.data; len(rest) > 0; {
		if s.heed && len(rest) < len(s.data)/2 {
			<-s.heard
			s.heed = false
		}
		n := min(len(rest), s.pieces)
		if _, err := conn.Write(rest[:n]); err != nil {
			t.Errorf("write: %v", err)
			return
		}
		rest = rest[n:]
	}
	if s.heed {
		<-s.heard
	}
	if err := conn.CloseWrite(); err != nil {
		t.Errorf("half-close: %v", err)
	}
}

// TestWhoGivesUpIsToldOf: a reset is passed on as one, at any time: the other must not take what it has for the whole.
func TestWhoGivesUpIsToldOf(t *testing.T) {
	for name, before := range map[string]func(a, b *net.TCPConn){
		"at once": func(_, _ *net.TCPConn) {},
		"after some words": func(a, b *net.TCPConn) {
			_, _ = io.WriteString(a, "some words")
			_, _ = io.ReadFull(b, make([]byte, 10))
		},
		"after the other has half-closed": func(a, b *net.TCPConn) {
			_ = b.CloseWrite()
			_, _ = io.ReadAll(a)
		},
		"in the middle of much": func(a, b *net.TCPConn) {
			_, _ = a.Write(make([]byte, 150_000))
			_, _ = io.ReadFull(b, make([]byte, 100))
		},
	} {
		t.Run(name, func(t *testing.T) {
			kinds(t, func(t *testing.T, r *rig) {
				a, b, p := r.joined(false)
				before(a, b)
				if err := errors.Join(a.SetLinger(0), a.Close()); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, b); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the other heard %v, want a reset", err)
				}
				<-p.done
			})
		})
	}
}

// TestWhoHasSaidAllAndGoesIsNotWaitedFor: one that has half-closed and is reset then has nobody wait for an answer to it.
func TestWhoHasSaidAllAndGoesIsNotWaitedFor(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		a, b, p := r.joined(false)
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(b); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(a.SetLinger(0), a.Close()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			t.Error("its pair is still there")
		}
	})
}

// TestGivenUpPairIsReset, on both ends, and no other is.
func TestGivenUpPairIsReset(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		a, b, p := r.joined(false)
		c, d, _ := r.joined(false)
		p.reset()
		p.reset()
		<-p.done
		for _, conn := range []net.Conn{a, b} {
			if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("an end heard %v, want a reset", err)
			}
		}
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(d, make([]byte, 1)); err != nil {
			t.Errorf("another pair: %v", err)
		}
	})
}

// TestOneThatSaysMuchLeavesOthersTheirTurn: while one pair of a loop carries as much as it can, others are answered.
func TestOneThatSaysMuchLeavesOthersTheirTurn(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		a, b, _ := r.joined(false)
		var flood sync.WaitGroup
		flood.Go(func() { _, _ = io.Copy(io.Discard, b) })
		flood.Go(func() {
			for buf := make([]byte, 1<<20); ; {
				if _, err := a.Write(buf); err != nil {
					return
				}
			}
		})
		for range 40 { // some of them are on its loop
			c, d, _ := r.joined(false)
			if _, err := io.WriteString(c, "x"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(d, make([]byte, 1)); err != nil {
				t.Fatalf("beside one that says much: %v", err)
			}
		}
		a.Close()
		b.Close()
		flood.Wait()
	})
}

// TestUrgentDataStopsNothing: a read ends at urgent data, and what follows is heard all the same.
func TestUrgentDataStopsNothing(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		a, b, _ := r.joined(false)
		raw, err := a.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			var fault error
			err := raw.Control(func(fd uintptr) {
				_, _ = syscall.Write(int(fd), []byte("before"))
				fault = syscall.Sendto(int(fd), []byte("!"), syscall.MSG_OOB, nil)
				_, _ = syscall.Write(int(fd), []byte("after"))
			})
			if err := errors.Join(err, fault); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len("beforeafter"))
			if _, err := io.ReadFull(b, got); err != nil || string(got) != "beforeafter" {
				t.Fatalf("heard %q, %v", got, err)
			}
		}
	})
}

// TestSpokenIsSaid as soon as one end says something, and not before.
func TestSpokenIsSaid(t *testing.T) {
	r := newRig(t)
	a, far := r.wire(false)
	b, beyond := r.wire(false)
	var spoken atomic.Bool
	if _, err := r.r.Join(far, beyond, &spoken); err != nil {
		t.Fatal(err)
	}
	if spoken.Load() {
		t.Error("nobody has said anything")
	}
	_, _ = io.WriteString(b, "x")
	if _, err := io.ReadFull(a, make([]byte, 1)); err != nil || !spoken.Load() {
		t.Errorf("spoken is %v, %v", spoken.Load(), err)
	}
}

// TestLastWordsAndTheEndGoTogether: who says something and ends is heard so, in one packet. If a busy machine holds the loop up for a
// fifth of a second between the two, the kernel waits no longer: so the fewest of some count.
func TestLastWordsAndTheEndGoTogether(t *testing.T) {
	r := newRig(t)
	fewest := uint32(100)
	for range 5 {
		a, far := r.wire(false)
		b, beyond := r.wire(false)
		_, err := io.WriteString(a, "bye")
		if err := errors.Join(err, a.CloseWrite()); err != nil {
			t.Fatal(err)
		}
		arrived(t, far)
		had := packets(t, b)
		if _, err := r.r.Join(far, beyond, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); string(got) != "bye" {
			t.Errorf("heard %q, %v", got, err)
		}
		fewest = min(fewest, packets(t, b)-had)
	}
	if fewest != 1 {
		t.Errorf("%d packets came, want 1", fewest)
	}
}

// packets are those that have come to an end.
func packets(t *testing.T, conn *net.TCPConn) uint32 {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	var fault error
	err = raw.Control(func(fd uintptr) { info, fault = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, fault); err != nil {
		t.Fatal(err)
	}
	return info.Segs_in
}
