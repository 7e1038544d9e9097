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
// CAP_NET_ADMIN. The zero source is the machine's own. It is for peers on this machine, which do not vanish without a word: the
// connection is not kept alive by probes. A network that cannot do it (a simulated one) dials as itself.
func DialFrom(ctx context.Context, n Network, network string, to netip.AddrPort, source netip.Addr) (net.Conn, error) {
	if able, ok := n.(interface {
		DialFrom(ctx context.Context, network string, to netip.AddrPort, source netip.Addr) (net.Conn, error)
	}); ok {
		return able.DialFrom(ctx, network, to, source)
	}
	return n.Dial(ctx, network, to.String())
}

// DialFrom is by IP_TRANSPARENT (ip(7)).
func (machineNetwork) DialFrom(ctx context.Context, network string, to netip.AddrPort, source netip.Addr) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	if !source.IsValid() { // with a source of zeros it would be bound to a port of its own, of which there are few
		return d.DialContext(ctx, network, to.String())
	}
	d.Control = asAnyone
	from := netip.AddrPortFrom(source, 0)
	// The results are looked at one by one: a nil connection of a type is no nil net.Conn.
	if network == "udp" {
		c, err := d.DialUDP(ctx, network, from, to)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	c, err := d.DialTCP(ctx, network, from, to)
	if err != nil {
		return nil, err
	}
	return c, nil
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
