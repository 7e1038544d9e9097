package relay_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestClientsThatGiveUpAtOnceHarmNoOther: pairs whose client is gone when they are joined are closed at once, and their numbers are
// others' then, which are joined at the same time.
func TestClientsThatGiveUpAtOnceHarmNoOther(t *testing.T) {
	r := newRig(t)
	for range 60 {
		var all sync.WaitGroup
		for range 16 {
			a, far := r.wire(false)
			b, beyond := r.wire(false)
			if err := errors.Join(a.SetLinger(0), a.Close()); err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				p, err := r.r.Join(far, beyond, nil)
				if err != nil {
					t.Error(err)
					return
				}
				<-p.Done()
				if _, err := io.ReadAll(b); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the other heard %v, want a reset", err)
				}
				b.Close()
			})
		}
		all.Wait()
		if t.Failed() {
			return
		}
	}
}

// TestResetIsPassedOnPastWhatNobodyTakes: who gives up is told of to one that does not listen, too. Else the pair would stay for as
// long as that one does.
func TestResetIsPassedOnPastWhatNobodyTakes(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		a, b, p := r.joined(true)
		fill(t, a)
		if err := errors.Join(a.SetLinger(0), a.Close()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
			t.Fatal("its pair is still there")
		}
		if _, err := io.Copy(io.Discard, b); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the other heard %v, want a reset", err)
		}
	})
}

// fill says as much as there is room for. It is more than can go on to an end of a small wire that takes nothing.
func fill(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fault error
	err = raw.Control(func(fd uintptr) {
		for buf := make([]byte, 64<<10); fault == nil; {
			_, fault = syscall.Write(int(fd), buf)
		}
	})
	if err != nil || !errors.Is(fault, syscall.EAGAIN) {
		t.Fatal(err, fault)
	}
}

// TestUrgentDataAmongMuchStopsNothing: the kernel moves much from socket to socket, and says the same at urgent data and at the end.
// All is there before it begins, so that it meets both at once.
func TestUrgentDataAmongMuchStopsNothing(t *testing.T) {
	for name, ended := range map[string]bool{"then silence": false, "then the end": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			roomy(t, r.l)
			a, far := r.wire(false)
			b, beyond := r.wire(false)
			const before = 100_000 // the first 64 KiB by hand
			want := before + len("tail")
			_, err := a.Write(make([]byte, before))
			if err := errors.Join(err, urge(a)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(a, "tail"); err != nil {
				t.Fatal(err)
			}
			if ended {
				if err := a.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				arrived(t, far)
			}
			if _, err := r.r.Join(far, beyond, nil); err != nil {
				t.Fatal(err)
			}
			if err := b.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := io.ReadFull(b, make([]byte, want)); err != nil {
				t.Errorf("heard %d bytes of %d, %v", n, want, err)
			}
		})
	}
}

// roomy has what a listener accepts take much before anybody reads it.
func roomy(t *testing.T, l net.Listener) {
	t.Helper()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fault error
	err = raw.Control(func(fd uintptr) { fault = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20) })
	if err := errors.Join(err, fault); err != nil {
		t.Fatal(err)
	}
}

// urge says a byte of urgent data.
func urge(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var fault error
	err = raw.Control(func(fd uintptr) { fault = syscall.Sendto(int(fd), []byte("!"), syscall.MSG_OOB, nil) })
	return errors.Join(err, fault)
}

// arrived waits until the other's end has come, and so all that it said.
func arrived(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const closeWait = 8 // TCP_CLOSE_WAIT
	var fault error
	err = raw.Read(func(fd uintptr) bool {
		var info *unix.TCPInfo
		info, fault = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		return fault != nil || info.State == closeWait
	})
	if err := errors.Join(err, fault); err != nil {
		t.Fatal(err)
	}
}
