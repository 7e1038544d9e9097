package run

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SetUserTimeout gives a TCP connection up when what was sent is not acknowledged within d (TCP_USER_TIMEOUT, RFC 5482):
// the kernel's own patience is a quarter of an hour. A simulated connection is told by its method of this name; any other
// is left as it is.
func SetUserTimeout(conn net.Conn, d time.Duration) {
	if simulated, ok := conn.(interface{ SetUserTimeout(d time.Duration) }); ok {
		simulated.SetUserTimeout(d)
		return
	}
	tcp, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // it is closed already
	}
	_ = raw.Control(func(fd uintptr) {
		// A unix socket refuses the option, and needs none.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}
