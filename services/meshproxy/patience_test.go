package meshproxy

import (
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
)

// One lost probe, or two, end no connection on which nothing is said: the next is sent before the patience with a silent peer ends.
func TestLostProbesEndNoLink(t *testing.T) {
	env := run.Env{}.OrMachine("test")
	l, err := env.Net.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := env.Net.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	run.SetUserTimeout(c, peerPatience)
	option := func(name int, unit time.Duration) (d time.Duration) {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				got, failed := syscall.GetsockoptInt(int(fd), unix.IPPROTO_TCP, name)
				if d = time.Duration(got) * unit; failed != nil {
					t.Error(failed)
				}
			})
		}
		if err != nil {
			t.Error(err)
		}
		return d
	}
	patience := option(unix.TCP_USER_TIMEOUT, time.Millisecond)
	third := option(unix.TCP_KEEPIDLE, time.Second) + 2*option(unix.TCP_KEEPINTVL, time.Second)
	if patience != peerPatience || third >= patience {
		t.Errorf("the third probe comes after %s, the patience is %s", third, patience)
	}
}
