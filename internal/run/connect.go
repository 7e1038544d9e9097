package run

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Connect begins what DialFrom does with "tcp", and does not wait. The socket is the caller's: it can be written to when the connection
// is there, and has an error (SO_ERROR) when it does not come about. A network without sockets (a simulated one) has
// errors.ErrUnsupported.
func Connect(n Network, to netip.AddrPort, source netip.Addr) (fd int, err error) {
	able, ok := n.(interface {
		Connect(to netip.AddrPort, source netip.Addr) (fd int, err error)
	})
	if !ok {
		return -1, errors.ErrUnsupported
	}
	return able.Connect(to, source)
}

// Connect is by IP_TRANSPARENT, as DialFrom.
func (machineNetwork) Connect(to netip.AddrPort, source netip.Addr) (fd int, err error) {
	if !source.IsValid() {
		return connectFrom(to, netip.AddrPort{})
	}
	return byPorts(source, func(from netip.AddrPort) (int, error) { return connectFrom(to, from) })
}

// connectFrom makes as few calls as can be: a connection that a proxy carries costs a dozen more.
func connectFrom(to, from netip.AddrPort) (fd int, err error) {
	family, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if !to.Addr().Is4() {
		family, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if from.IsValid() && err == nil {
		err = errors.Join(unix.SetsockoptInt(fd, level, option, 1), share(fd, from.Port() != 0), unix.Bind(fd, sockaddr(from)))
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err == nil || errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EINTR) {
		return fd, nil
	}
	return -1, errors.Join(os.NewSyscallError("connect", err), unix.Close(fd))
}

// share lets a stranger's port be used for several connections to different places; one that is still to be chosen is, when it is known
// where to.
func share(fd int, chosen bool) error {
	if chosen {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
