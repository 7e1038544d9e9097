package space

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// roomy is enough for the tables of a container on networks with thousands of services, in one transaction.
const roomy = 16 << 20

// wire talks by a netlink socket that somebody else has opened, in the namespace where it was opened. The kernel works while
// it takes a message and has its answers ready when it has taken it: nothing here waits.
type wire struct {
	fd  int
	seq uint32
}

func newWire(fd int) *wire {
	for _, buffer := range []int{unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, buffer, roomy) // else large tables are refused, and that is told
	}
	return &wire{fd: fd}
}

// batch sends the messages of one transaction. It has the form of a transport of google/nftables, which encodes them; called
// without messages it is asked for answers, of which it has none left. Only the last message asks for an answer: errors come
// unasked, and thousands of acknowledgements would not fit into the socket.
func (w *wire) batch(messages []netlink.Message) ([]netlink.Message, error) {
	if len(messages) == 0 {
		return nil, io.EOF
	}
	var data []byte
	for i, m := range messages {
		m.Header.Flags &^= netlink.Acknowledge | netlink.Echo
		if i == len(messages)-2 { // the one before the end of the batch
			m.Header.Flags |= netlink.Acknowledge
		}
		m.Header.PID = 0
		b, err := m.MarshalBinary()
		if err != nil {
			return nil, err
		}
		data = append(data, b...)
	}
	if err := w.send(data); err != nil {
		return nil, err
	}
	_, err := w.receive()
	return nil, err
}

func (w *wire) send(data []byte) error {
	if err := unix.Sendto(w.fd, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to the kernel: %w", err)
	}
	return nil
}

// receive reads all answers there are; the first error in them is the error.
func (w *wire) receive() (out []netlink.Message, failed error) {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(w.fd, buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return out, failed
		}
		if err != nil {
			return nil, errors.Join(failed, fmt.Errorf("hear from the kernel: %w", err))
		}
		for rest := buf[:n]; len(rest) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(rest))
			if size < unix.NLMSG_HDRLEN || size > len(rest) {
				return nil, errors.Join(failed, errors.New("the kernel's answer is cut"))
			}
			var m netlink.Message
			m.Header.Type = netlink.HeaderType(binary.NativeEndian.Uint16(rest[4:]))
			m.Data = append([]byte(nil), rest[unix.NLMSG_HDRLEN:size]...)
			if m.Header.Type == netlink.Error && len(m.Data) >= 4 {
				if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 && failed == nil {
					failed = unix.Errno(-code)
				}
			} else if m.Header.Type != netlink.Done {
				out = append(out, m)
			}
			rest = rest[min((size+3)&^3, len(rest)):]
		}
	}
}

// ask sends one message and returns the answers.
func (w *wire) ask(subsystem, kind uint16, flags netlink.HeaderFlags, family byte, attributes []byte) ([]netlink.Message, error) {
	w.seq++
	data := append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...)
	m := netlink.Message{Header: netlink.Header{
		Length: uint32(unix.NLMSG_HDRLEN + len(data)), Type: netlink.HeaderType(subsystem<<8 | kind),
		Flags: netlink.Request | flags, Sequence: w.seq,
	}, Data: data}
	b, err := m.MarshalBinary()
	if err != nil {
		return nil, err
	}
	if err := w.send(b); err != nil {
		return nil, err
	}
	return w.receive()
}

// generation counts the changes of the packet filter in the namespace, whoever makes them.
func (w *wire) generation() (uint32, error) {
	answers, err := w.ask(unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, nil)
	if err != nil || len(answers) == 0 || len(answers[0].Data) < 4 {
		return 0, errors.Join(errors.New("the kernel does not tell its generation of the packet filter"), err)
	}
	d, err := netlink.NewAttributeDecoder(answers[0].Data[4:])
	if err != nil {
		return 0, err
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		if d.Type() == unix.NFTA_GEN_ID {
			return d.Uint32(), d.Err()
		}
	}
	return 0, errors.New("the kernel's generation of the packet filter has no number")
}

// Attributes of chains.
const chainTable, chainName = unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME

// chains are the names of a table's.
func (w *wire) chains(table string) (out []string, err error) {
	answers, err := w.ask(unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETCHAIN, netlink.Dump, unix.NFPROTO_INET, nil)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	for _, m := range answers {
		if len(m.Data) < 4 {
			return nil, errors.New("a chain is cut")
		}
		walk(m.Data[4:], chainTable, func(of []byte) {
			if string(of) == table+"\x00" {
				walk(m.Data[4:], chainName, func(name []byte) { out = append(out, strings.TrimRight(string(name), "\x00")) })
			}
		})
	}
	return out, nil
}

// Attributes of connection tracking (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctGet, ctDelete     = 1, 2
	ctStats             = 5 // of the namespace
	ctStatsEntries      = 1
	ctOrigin, ctReply   = 1, 2
	ctTupleIP, ctSource = 1, 1
	ctTupleProto        = 2
	ctSource6           = 3
	ctProtoNumber       = 1
)

// forget deletes those of the connections that were led somewhere: their replies come from there, but they were not dialled there.
// The kernel goes through the connections of all namespaces to list those of one, so it is asked first whether there are any: of the
// containers that have just come there are none.
func (w *wire) forget(which func(flow) bool) error {
	if n, err := w.tracked(); err != nil || n == 0 {
		return err
	}
	var faults []error
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		flows, err := w.ask(unix.NFNL_SUBSYS_CTNETLINK, ctGet, netlink.Dump, family, nil)
		faults = append(faults, err)
		for _, m := range flows {
			f, err := flowOf(m.Data)
			if err != nil || f.replySource == f.target || !which(f) {
				continue
			}
			if _, err := w.ask(unix.NFNL_SUBSYS_CTNETLINK, ctDelete, netlink.Acknowledge, family, f.origin); !errors.Is(err, unix.ENOENT) {
				faults = append(faults, err)
			}
		}
	}
	return errors.Join(faults...)
}

// tracked counts the namespace's connections.
func (w *wire) tracked() (uint32, error) {
	answers, err := w.ask(unix.NFNL_SUBSYS_CTNETLINK, ctStats, 0, unix.AF_UNSPEC, nil)
	if err != nil || len(answers) == 0 || len(answers[0].Data) < 4 {
		return 0, errors.Join(errors.New("the kernel does not count the connections"), err)
	}
	n, told := uint32(0), false
	walk(answers[0].Data[4:], ctStatsEntries, func(value []byte) {
		if len(value) == 4 {
			n, told = binary.BigEndian.Uint32(value), true
		}
	})
	if !told {
		return 0, errors.New("the kernel counts the connections without a number")
	}
	return n, nil
}

// flow is a connection as it is tracked.
type flow struct {
	protocol            byte
	target, replySource netip.Addr
	origin              []byte // the attribute that names it
}

func flowOf(data []byte) (f flow, err error) {
	if len(data) < 4 {
		return f, errors.New("a flow is cut")
	}
	d, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return f, err
	}
	for d.Next() {
		switch d.Type() {
		case ctOrigin:
			raw := d.Bytes()
			_, f.target, f.protocol = tuple(raw)
			f.origin, err = netlink.MarshalAttributes([]netlink.Attribute{{Type: ctOrigin | netlink.Nested, Data: raw}})
			if err != nil {
				return f, err
			}
		case ctReply:
			f.replySource, _, _ = tuple(d.Bytes())
		}
	}
	return f, d.Err()
}

// tuple reads one direction; what it lacks is invalid, and no backend.
func tuple(data []byte) (source, target netip.Addr, protocol byte) {
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return source, target, 0
	}
	for d.Next() {
		inner, err := netlink.NewAttributeDecoder(d.Bytes())
		if err != nil {
			return source, target, 0
		}
		for inner.Next() {
			switch {
			case d.Type() == ctTupleProto && inner.Type() == ctProtoNumber:
				protocol = inner.Uint8()
			case d.Type() == ctTupleIP && (inner.Type() == ctSource || inner.Type() == ctSource6):
				source, _ = netip.AddrFromSlice(inner.Bytes())
			case d.Type() == ctTupleIP:
				target, _ = netip.AddrFromSlice(inner.Bytes())
			}
		}
	}
	return source, target, protocol
}
