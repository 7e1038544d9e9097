package forward

import (
	"context"
	"net"
	"net/netip"

	"github.com/shoalproject/shoal/internal/run"
)

// addressOf is a client's address, IPv4 as such; invalid for what has none.
func addressOf(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		at = a.AddrPort()
	case *net.UDPAddr:
		at = a.AddrPort()
	case nil:
	default:
		at, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// dialTask opens the way to a task of this machine, which sees the client's own address where that can be.
func (f *Forwarder) dialTask(ctx context.Context, network string, task netip.AddrPort, client netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	return run.DialFrom(ctx, f.env.Net, network, task, f.source(client, task))
}

// source is the address with which a task is spoken to: its client's own, or none where it is to be this machine's.
func (f *Forwarder) source(client netip.Addr, task netip.AddrPort) netip.Addr {
	if !f.transparent || !speaks(client, task.Addr()) {
		return netip.Addr{}
	}
	return client
}

// speaks says that a task can be spoken to with the client's address. To itself it cannot: it would take that for a stranger's
// lie. What is loopback here is so there. An address with a zone means something on its own link alone.
func speaks(client, task netip.Addr) bool {
	return client.Is4() == task.Is4() && client != task && client.IsGlobalUnicast()
}
