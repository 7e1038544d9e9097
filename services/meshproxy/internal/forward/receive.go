package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"

	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/relay"
)

// Accept serves a connection from a peer, a verified meshproxy of the cluster, until it ends: stream after stream. It
// dials only what this machine's own tables have: a peer can reach no other address and no other port by it.
func (f *Forwarder) Accept(ctx context.Context, conn net.Conn, node string) {
	var read []byte
	if relay.Takes(conn) {
		if conn, read = f.attendPeer(ctx, conn, node); conn == nil {
			return
		}
	}
	l := newLink(conn, node)
	if len(read) > 0 {
		l.in.Reset(io.MultiReader(bytes.NewReader(read), conn))
	}
	defer l.close()
	for ctx.Err() == nil {
		if !f.stream(ctx, l) {
			return
		}
	}
}

// stream is one header and what follows; false if the link has ended.
func (f *Forwarder) stream(ctx context.Context, l *link) bool {
	wait, cancel := context.WithTimeout(ctx, receiverTime)
	done := l.until(wait)
	header := &meshv1.ForwardHeader{}
	err := l.receive(header)
	alive := done()
	cancel()
	if err != nil || !alive {
		return false
	}
	select {
	case f.inbound <- struct{}{}:
		defer func() { <-f.inbound }()
	default:
		return l.send(&meshv1.ForwardReply{Error: full}) == nil
	}
	ctx, cancel = f.lasting(ctx)
	defer cancel()
	conn, reason := f.dialFor(ctx, header, l.node)
	if reason != "" {
		f.meter.inbound.WithLabelValues("refused").Inc()
		return l.send(&meshv1.ForwardReply{Error: reason}) == nil
	}
	f.meter.inbound.WithLabelValues("served").Inc()
	if err := l.send(&meshv1.ForwardReply{}); err != nil {
		_ = conn.Close() // nobody is there any more
		return false
	}
	if header.GetNetwork() == "udp" {
		return f.relayPackets(ctx, conn, l)
	}
	return f.carry(ctx, conn, l, nil)
}

// dialFor checks the header against the tables before anything is dialled.
func (f *Forwarder) dialFor(ctx context.Context, h *meshv1.ForwardHeader, node string) (conn net.Conn, reason string) {
	address, client, reason := f.wanted(h, node)
	if reason != "" {
		return nil, reason
	}
	conn, err := f.dialTask(ctx, h.GetNetwork(), address, client)
	if err != nil {
		if cause, ok := errors.AsType[*net.OpError](err); ok {
			err = cause.Err // the rest of it is in the header
		}
		return nil, unanswered + err.Error()
	}
	return conn, ""
}

// wanted is what a header asks for, and for whom, if the tables have it here.
func (f *Forwarder) wanted(h *meshv1.ForwardHeader, node string) (address netip.AddrPort, client netip.Addr, reason string) {
	address, err := netip.ParseAddrPort(h.GetAddress())
	if err != nil || !f.has(target{h.GetNetwork(), h.GetTaskId(), address}) {
		f.env.Log.Debug("stream refused", "peer", node, "task", h.GetTaskId(), "address", h.GetAddress())
		return address, client, "no ready task " + h.GetTaskId() + " with this address and port on this machine"
	}
	from, _ := netip.ParseAddrPort(h.GetClient()) // without one it is spoken to as this machine
	return address, from.Addr(), ""
}
