package simnet

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

const firstEphemeral = 32768

// resolve turns host:port into address and port. An empty host is the unspecified address, a host's name its first
// address of the wanted family. Needs the lock.
func (n *Net) resolve(network, address string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return netip.AddrPort{}, &net.AddrError{Err: "invalid port", Addr: address}
	}
	ip, err := n.lookup(network, host)
	return netip.AddrPortFrom(ip, uint16(port)), err
}

func (n *Net) lookup(network, host string) (netip.Addr, error) {
	var candidates []netip.Addr
	if ip, err := netip.ParseAddr(host); err == nil {
		candidates = []netip.Addr{ip.Unmap().WithZone("")}
	} else if host == "" {
		candidates = []netip.Addr{netip.IPv6Unspecified(), netip.IPv4Unspecified()}
	} else if host == "localhost" {
		candidates = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	} else if h := n.hosts[host]; h != nil {
		candidates = h.addrs
	}
	for _, ip := range candidates {
		if familyOf(network, ip) {
			return ip, nil
		}
	}
	return netip.Addr{}, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// familyOf says that the address may be used with the network: tcp4 and udp4 take IPv4 only, and so on.
func familyOf(network string, ip netip.Addr) bool {
	switch {
	case strings.HasSuffix(network, "4"):
		return ip.Is4()
	case strings.HasSuffix(network, "6"):
		return ip.Is6()
	}
	return true
}

// bindable says that the host has the address. A link-local one may be any host's own: others do not reach it there.
func (h *Host) bindable(ip netip.Addr) bool {
	return ip.IsUnspecified() || ip.IsLoopback() || (ip.Is4() && ip.IsLinkLocalUnicast()) || h.net.byAddr[ip] == h
}

// overlap says that two sockets of the same port cannot both be: the unspecified address takes every one of its family,
// and :: takes IPv4 as well.
func overlap(a, b netip.Addr) bool {
	return a == b || covers(a, b) || covers(b, a)
}

// covers says that a socket bound to a receives what is sent to b.
func covers(a, b netip.Addr) bool {
	return a == b || a.IsUnspecified() && (a.Is6() || b.Is4())
}

// target finds the host that has the address, seen from h; nil if nobody has. Unspecified is h itself, as on Linux.
func (h *Host) target(ip netip.Addr) *Host {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return h
	}
	return h.net.byAddr[ip]
}

// source is the local address for a connection to ip.
func (h *Host) source(ip netip.Addr) netip.Addr {
	if ip.IsLoopback() || h.net.byAddr[ip] == h {
		return ip
	}
	for _, own := range h.addrs {
		if own.Is4() == ip.Is4() {
			return own
		}
	}
	return h.addrs[0]
}

// ephemeral is the next port that free allows.
func (h *Host) ephemeral(free func(port uint16) bool) uint16 {
	for range 65536 - firstEphemeral {
		h.port++
		if h.port < firstEphemeral {
			h.port = firstEphemeral
		}
		if free(h.port) {
			return h.port
		}
	}
	return 0
}

func tcpAddr(ap netip.AddrPort) *net.TCPAddr { return net.TCPAddrFromAddrPort(ap) }
func udpAddr(ap netip.AddrPort) *net.UDPAddr { return net.UDPAddrFromAddrPort(ap) }
