package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"

	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
)

// Accept serves a connection from a peer, a verified meshproxy of the cluster, until it ends: stream after stream. It
// dials only what this machine's own tables have: a peer can reach no other address and no other port by it.
func (f *Forwarder) Accept(ctx context.Context, conn net.Conn, node string) {
	l := newLink(conn, node)
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
		return l.send(&meshv1.ForwardReply{Error: "this machine serves as many streams as it can"}) == nil
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
	address, err := netip.ParseAddrPort(h.GetAddress())
	if err != nil || !f.has(target{h.GetNetwork(), h.GetTaskId(), address}) {
		f.env.Log.Debug("stream refused", "peer", node, "task", h.GetTaskId(), "address", h.GetAddress())
		return nil, "no ready task " + h.GetTaskId() + " with this address and port on this machine"
	}
	client, _ := netip.ParseAddrPort(h.GetClient()) // without one it is spoken to as this machine
	conn, err = f.dialTask(ctx, h.GetNetwork(), address, client.Addr())
	if err != nil {
		if cause, ok := errors.AsType[*net.OpError](err); ok {
			err = cause.Err // the rest of it is in the header
		}
		return nil, "the task does not answer: " + err.Error()
	}
	return conn, ""
}
