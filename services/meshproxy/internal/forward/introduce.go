package forward

import (
	"encoding/binary"
	"net/netip"

	"github.com/shoalproject/shoal/internal/errs"
)

// introduce tells the task who its client is, before all else, where the port asks for it. The task's machine need not know:
// to it these are the client's first bytes.
func (p *port) introduce(u upstream, o *Open) error {
	head := p.introduction(o)
	if head == nil {
		return nil
	}
	if u.conn != nil {
		_, err := u.conn.Write(head)
		if err != nil {
			u.abort()
		}
		return err
	}
	buf := append(make([]byte, 2, 2+len(head)), head...)
	if err := u.link.chunk(buf, len(head)); err != nil {
		u.abort()
		return errs.New(errs.Unavailable, "tell the task its client: %w", err)
	}
	return nil
}

// introduction is what a task is told of its client; nil where the port asks for nothing.
func (p *port) introduction(o *Open) []byte {
	p.mu.Lock()
	proxy := p.proxy
	p.mu.Unlock()
	if !proxy {
		return nil
	}
	return proxyHeader(o.Client, o.Dialled)
}

// proxyHeader is a PROXY protocol header of version 2 for a TCP connection (The PROXY protocol, haproxy.org, section 2.2):
// signature, version and command, family and transport, length, addresses, ports.
func proxyHeader(from, to netip.AddrPort) []byte {
	const (
		signature = "\r\n\r\n\x00\r\nQUIT\n"
		proxied   = 0x21
		tcp4      = 0x11
		tcp6      = 0x21
	)
	source, target, family := from.Addr().AsSlice(), to.Addr().AsSlice(), byte(tcp4)
	if !from.Addr().Is4() || !to.Addr().Is4() {
		a, b := from.Addr().As16(), to.Addr().As16() // one of each family cannot be said otherwise
		source, target, family = a[:], b[:], tcp6
	}
	head := append([]byte(signature), proxied, family)
	head = binary.BigEndian.AppendUint16(head, uint16(2*len(source)+4))
	head = append(append(head, source...), target...)
	head = binary.BigEndian.AppendUint16(head, from.Port())
	return binary.BigEndian.AppendUint16(head, to.Port())
}
