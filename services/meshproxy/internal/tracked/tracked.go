// Package tracked reads the connections that the kernel tracks.
//
// It owns nothing, changes nothing, and keeps nothing: each connection is handed on as it is read, so that a full table costs no
// memory. Functions are safe for concurrent use, each with a socket of its own.
package tracked

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Flow is a tracked connection.
type Flow struct {
	// Protocol is "tcp", "udp" or "sctp".
	Protocol string
	// Client began it, Dialled is what it was sent to, and LedTo who answers.
	Client, Dialled, LedTo netip.AddrPort
	// State is TCP's, in the kernel's words; empty for the others.
	State string
}

// Translated says that it was led somewhere else than it was sent to.
func (f Flow) Translated() bool { return f.Dialled != f.LedTo }

// Attributes of connection tracking (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctGet                                 = 1
	ctOrigin, ctReply, ctProtoInfo        = 1, 2, 4
	tupleIP, tupleProto                   = 1, 2
	source4, target4, source6, target6    = 1, 2, 3, 4
	protoNumber, protoSource, protoTarget = 1, 2, 3
	infoTCP, tcpState                     = 1, 1
)

// buffer takes some of the kernel's answers, which are at most this long.
const buffer = 64 << 10

// Each reads all of the calling thread's network.
func Each(do func(Flow)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer unix.Close(fd)
	return EachOf(fd, do)
}

// EachOf reads all of the network that a netfilter socket was opened in. Nobody else may use the socket meanwhile.
func EachOf(fd int, do func(Flow)) error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := dump(fd, family, do); err != nil {
			return fmt.Errorf("list tracked connections: %w", err)
		}
	}
	return nil
}

func dump(fd int, family byte, do func(Flow)) error {
	data := []byte{family, unix.NFNETLINK_V0, 0, 0}
	m := netlink.Message{Header: netlink.Header{
		Length: uint32(unix.NLMSG_HDRLEN + len(data)), Type: netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | ctGet),
		Flags: netlink.Request | netlink.Dump, Sequence: 1,
	}, Data: data}
	raw, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	if err := unix.Sendto(fd, raw, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, buffer)
	for {
		// The kernel makes the next part while it hands one over: there is always an answer to wait for before the end.
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		done, err := read(buf[:n], do)
		if done || err != nil {
			return err
		}
	}
}

// read hands on the flows of one answer, and says whether it was the last.
func read(part []byte, do func(Flow)) (done bool, err error) {
	for len(part) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(part))
		if size < unix.NLMSG_HDRLEN || size > len(part) {
			return true, errors.New("the kernel's answer is cut")
		}
		switch kind, body := netlink.HeaderType(binary.NativeEndian.Uint16(part[4:])), part[unix.NLMSG_HDRLEN:size]; kind {
		case netlink.Done:
			return true, nil
		case netlink.Error:
			if len(body) >= 4 {
				if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
					return true, unix.Errno(-code)
				}
			}
		default:
			if f, ok := flowOf(body); ok {
				do(f)
			}
		}
		part = part[min((size+3)&^3, len(part)):]
	}
	return false, nil
}

// flowOf is not ok for protocols without ports.
func flowOf(body []byte) (f Flow, ok bool) {
	if len(body) < 4 {
		return f, false
	}
	d, err := netlink.NewAttributeDecoder(body[4:])
	if err != nil {
		return f, false
	}
	var protocol byte
	for d.Next() {
		switch d.Type() {
		case ctOrigin:
			f.Client, f.Dialled, protocol = tuple(d.Bytes())
		case ctReply:
			f.LedTo, _, _ = tuple(d.Bytes())
		case ctProtoInfo:
			f.State = stateOf(d.Bytes())
		}
	}
	f.Protocol = map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}[protocol]
	if f.Protocol != "tcp" {
		f.State = ""
	}
	return f, d.Err() == nil && f.Protocol != "" && f.Client.IsValid() && f.LedTo.IsValid()
}

// tuple reads one direction of a flow: who sends, to whom, and by which protocol.
func tuple(data []byte) (source, target netip.AddrPort, protocol byte) {
	var from, to netip.Addr
	var fromPort, toPort uint16
	nested(data, func(kind uint16, b []byte) {
		switch kind {
		case tupleIP:
			nested(b, func(kind uint16, b []byte) {
				a, _ := netip.AddrFromSlice(b)
				switch kind {
				case source4, source6:
					from = a
				case target4, target6:
					to = a
				}
			})
		case tupleProto:
			nested(b, func(kind uint16, b []byte) {
				switch {
				case kind == protoNumber && len(b) == 1:
					protocol = b[0]
				case kind == protoSource && len(b) == 2:
					fromPort = binary.BigEndian.Uint16(b)
				case kind == protoTarget && len(b) == 2:
					toPort = binary.BigEndian.Uint16(b)
				}
			})
		}
	})
	return netip.AddrPortFrom(from, fromPort), netip.AddrPortFrom(to, toPort), protocol
}

// stateOf reads TCP's state.
func stateOf(data []byte) string {
	states := []string{
		"", "syn-sent", "syn-received", "established", "fin-wait", "close-wait", "last-ack", "time-wait", "close", "syn-sent",
	}
	out := ""
	nested(data, func(kind uint16, b []byte) {
		if kind == infoTCP {
			nested(b, func(kind uint16, b []byte) {
				if kind == tcpState && len(b) == 1 && int(b[0]) < len(states) {
					out = states[b[0]]
				}
			})
		}
	})
	return out
}

func nested(data []byte, each func(kind uint16, b []byte)) {
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return
	}
	for d.Next() {
		each(d.Type(), d.Bytes())
	}
}
