package packet

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reader is a connection of which the system tells when there is something to read.
type Reader struct{ raw syscall.RawConn }

// ReaderOf is false for what is no socket of the system, as in the simulation.
func ReaderOf(conn net.Conn) (Reader, bool) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return Reader{}, false
	}
	raw, err := c.SyscallConn()
	return Reader{raw}, err == nil
}

// Read waits for a datagram and reads it into the buffer that take gives. It asks for one only when there is something to read, and
// calls back when there was nothing after all.
func (r Reader) Read(take func() []byte, back func()) (n int, err error) {
	var fault error
	err = r.raw.Read(func(fd uintptr) bool {
		buf := take()
		for {
			if n, fault = unix.Read(int(fd), buf); fault != unix.EINTR {
				break
			}
		}
		if fault == unix.EAGAIN {
			back()
			return false
		}
		return true
	})
	if err = errors.Join(err, os.NewSyscallError("read", fault)); err != nil {
		return 0, err
	}
	return n, nil
}
