// Package packet is a UDP socket on all addresses that answers from the address that was asked.
//
// Without that the kernel would choose a source by its routes, and a client of a machine with several addresses would not
// know the answer as its own. It touches socket options, and nothing else of the system. A Socket is safe for concurrent
// use.
package packet

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Socket is one. One that is not the kernel's is used as it is.
type Socket struct {
	net.PacketConn
	udp *net.UDPConn // nil: plain
}

// Origin is where a datagram came from, and the kernel's note of the address that it was sent to.
type Origin struct {
	// Addr is the client's.
	Addr net.Addr

	from netip.AddrPort
	note string
}

// Key tells clients apart, also those that use one port towards two of our addresses.
func (o Origin) Key() string { return o.Addr.String() + "\x00" + o.note }

// New takes a socket over.
func New(pc net.PacketConn) *Socket {
	s := &Socket{PacketConn: pc}
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		return s
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return s
	}
	var err4, err6 error
	err = raw.Control(func(fd uintptr) {
		err6 = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		err4 = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	})
	if err == nil && (err4 == nil || err6 == nil) {
		s.udp = udp
	}
	return s
}

// Read takes the next datagram.
func (s *Socket) Read(buf []byte) (int, Origin, error) {
	if s.udp == nil {
		n, addr, err := s.ReadFrom(buf)
		return n, Origin{Addr: addr}, err
	}
	var oob [128]byte
	n, m, _, from, err := s.udp.ReadMsgUDPAddrPort(buf, oob[:])
	if err != nil {
		return 0, Origin{}, err
	}
	return n, Origin{Addr: net.UDPAddrFromAddrPort(from), from: from, note: answerFrom(oob[:m])}, nil
}

// Write answers one.
func (s *Socket) Write(data []byte, to Origin) error {
	if s.udp == nil {
		_, err := s.WriteTo(data, to.Addr)
		return err
	}
	_, _, err := s.udp.WriteMsgUDPAddrPort(data, []byte(to.note), to.from)
	return err
}

// answerFrom turns the kernel's note about a datagram into the one to send with its answer: the same address as source,
// whatever interface the route leads to (ip(7), ipv6(7)).
func answerFrom(oob []byte) string {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return ""
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			// struct in_pktinfo: ifindex, spec_dst, addr. spec_dst is the local address, and the source of the answer.
			return string(unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte(m.Data[4:8])}))
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			info := &unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])}
			if a := netip.AddrFrom16(info.Addr); a.IsLinkLocalUnicast() {
				info.Ifindex = uint32(m.Data[16]) | uint32(m.Data[17])<<8 // only there is an address without its link nothing
			}
			return string(unix.PktInfo6(info))
		}
	}
	return ""
}
