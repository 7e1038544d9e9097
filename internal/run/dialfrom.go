package run

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// DialFrom is Dial with a source address that need not be this machine's: who is dialled sees it as the caller. Packets that
// answer must be led to this machine, and to the socket, by rules that the caller has made. It takes "tcp" and "udp", and
// CAP_NET_ADMIN. A network that cannot do it (a simulated one) dials as itself.
func DialFrom(ctx context.Context, n Network, network, address string, source netip.Addr) (net.Conn, error) {
	if able, ok := n.(interface {
		DialFrom(ctx context.Context, network, address string, source netip.Addr) (net.Conn, error)
	}); ok {
		return able.DialFrom(ctx, network, address, source)
	}
	return n.Dial(ctx, network, address)
}

// DialFrom is by IP_TRANSPARENT (ip(7)).
func (machineNetwork) DialFrom(ctx context.Context, network, address string, source netip.Addr) (net.Conn, error) {
	d := net.Dialer{Control: asAnyone}
	if strings.HasPrefix(network, "udp") {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	} else {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	return d.DialContext(ctx, network, address)
}

// asAnyone lets a socket be bound to a stranger's address. Its port is chosen when it is known whom it connects to: else there
// were no more connections from one address than there are ports.
func asAnyone(network, _ string, raw syscall.RawConn) error {
	level, option := unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if strings.HasSuffix(network, "6") {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	var err error
	failed := raw.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), level, option, 1),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		)
	})
	return errors.Join(failed, err)
}
