package relay

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// end is a socket, one of a pair's or a link's, and what is known of it. Readiness is told once (EPOLLET), and holds until a call has shown that it
// is used up.
type end struct {
	fd                 int
	pair               *Pair  // nil for a link that carries none
	link               *Link  // whose socket it is; nil: a client's or a task's
	since              uint64 // the round in which its loop began to watch it; 0: it was watched before
	readable, writable bool
	// whole says that a short read is no sign that there is nothing more: the end was announced already, or urgent data (tcp(7)),
	// at which a read stops. Neither is announced again.
	whole bool
	// ended says that its end was announced: all that it says is there.
	ended bool
	// broken says that it was reset. While it may have something to say, the read that meets it tells in its turn.
	broken bool
}

// watched is what is told of an end.
const watched = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET

// note takes what the kernel tells. An error is found by the call that meets it.
func (e *end) note(events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.readable = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.writable = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 {
		e.whole = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 {
		e.ended = true
	}
	if events&unix.EPOLLERR != 0 {
		e.broken = true
	}
}

// read is nothing, and no error, if there is nothing now; over is the end. Fewer bytes than asked for are all that there are.
func (e *end) read(buf []byte) (n int, over bool, err error) {
	n, err = again(func() (int, error) { return unix.Read(e.fd, buf) })
	switch {
	case errors.Is(err, unix.EAGAIN):
		e.readable = false
		return 0, false, nil
	case err != nil:
		return 0, false, os.NewSyscallError("read", err)
	case n == 0:
		return 0, true, nil
	}
	if n < len(buf) && !e.whole {
		e.readable = false
	}
	return n, false, nil
}

// write takes what there is room for. Last words wait for the end to go with it, in one packet, which comes at once.
func (e *end) write(data []byte, last bool) (n int, err error) {
	n, err = again(func() (int, error) {
		if last {
			return unix.SendmsgN(e.fd, data, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		}
		return unix.Write(e.fd, data)
	})
	switch {
	case errors.Is(err, unix.EAGAIN):
		e.writable = false
		return 0, nil
	case err != nil:
		return 0, os.NewSyscallError("write", err)
	}
	if e.writable = n == len(data); last && !e.writable {
		// There are words after all for which there is no room, and would be none for a fifth of a second: it sends what it holds back.
		_ = unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	return n, nil
}

// again repeats a call that a signal has interrupted.
func again(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR { //nolint:errorlint // an errno as the kernel gave it, on the path of each byte
			return n, err
		}
	}
}

// detach takes the socket of a connection or a listener from the runtime, which would be woken by whatever comes to it, and closes what
// had it.
func detach(of interface{ Close() error }) (fd int, err error) {
	defer func() { _ = of.Close() }() // what is to be said of it, its socket says
	c, ok := of.(syscall.Conn)
	if !ok {
		return -1, errors.ErrUnsupported
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var fault error
	if err := raw.Control(func(own uintptr) {
		fd, fault = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("fcntl", fault)
}

// closeSocket ends a connection: with a reset, or after all that was written.
func closeSocket(fd int, reset bool) {
	if reset {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // then it is closed the other way
	}
	_ = unix.Close(fd) // nobody has an interest in why it did not close
}
