package run

import (
	"context"
	"errors"
	"math/rand/v2"
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

// The ports by which a stranger's address is spoken with: systems that call choose theirs from 32768 on. The stranger may be connected to the
// same place by another way, and answers to one of two connections with the same ends would come to the other.
const (
	firstPort  = 20000
	otherPorts = 10000 // below those that clusters publish
	portTries  = 8     // then whatever port is free
)

// DialFrom is by IP_TRANSPARENT (ip(7)).
func (machineNetwork) DialFrom(ctx context.Context, network string, to netip.AddrPort, source netip.Addr) (net.Conn, error) {
	if !source.IsValid() { // with a source of zeros it would be bound to a port of its own, of which there are few
		d := net.Dialer{KeepAlive: -1}
		return d.DialContext(ctx, network, to.String())
	}
	return byPorts(source, func(from netip.AddrPort) (net.Conn, error) {
		shared := network == "tcp" && from.Port() != 0
		return dialBound(ctx, &net.Dialer{KeepAlive: -1, Control: asAnyone(shared)}, network, to, from)
	})
}

// byPorts tries some. One that this machine listens on, as it does on a published one, is of no use.
func byPorts[T any](source netip.Addr, dial func(from netip.AddrPort) (T, error)) (T, error) {
	for range portTries {
		c, err := dial(netip.AddrPortFrom(source, uint16(firstPort+rand.IntN(otherPorts))))
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return c, err
		}
	}
	return dial(netip.AddrPortFrom(source, 0))
}

// dialBound looks at the results one by one: a nil connection of a type is no nil net.Conn.
func dialBound(ctx context.Context, d *net.Dialer, network string, to, from netip.AddrPort) (net.Conn, error) {
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

// asAnyone lets a socket be bound to a stranger's address. Where several may share a port, as those may that are connected to different
// places, or where the port is chosen when it is known whom the socket connects to, there are more connections from one address than
// there are ports.
func asAnyone(shared bool) func(network, _ string, raw syscall.RawConn) error {
	return func(network, _ string, raw syscall.RawConn) error {
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
			if shared {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
			}
		})
		return errors.Join(failed, err)
	}
}
