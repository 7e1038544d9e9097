package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/relay"
)

// refusal is why another machine does not serve a stream.
type refusal struct{ error }

// Node is relay.Far's.
func (v *visit) Node() string { return v.backends[0].Node }

// Header is relay.Far's.
func (v *visit) Header() []byte {
	header, _ := proto.Marshal(headerFor(v.Network, v.backends[0], v.open.Client)) // its strings are addresses and an id
	return header
}

// Answer is relay.Far's.
func (v *visit) Answer(reply []byte) error {
	answer := &meshv1.ForwardReply{}
	if err := proto.Unmarshal(reply, answer); err != nil {
		return err
	}
	if reason := answer.GetError(); reason != "" {
		return refusal{errs.New(errs.Unavailable, "%s", reason)}
	}
	return nil
}

// Dial is relay.Far's. Links that were made for what no loop carries are as good.
func (v *visit) Dial(pair *relay.Pair) {
	again := v.dialled
	v.dialled = true
	v.beside(func(ctx context.Context) error {
		ctx, cancel := v.f.lasting(ctx)
		defer cancel()
		ctx, stop := context.WithTimeout(ctx, remoteTryLimit)
		defer stop()
		node := v.backends[0].Node
		if again { // a warm one was not good
			v.f.links.forget(node)
		}
		l, warm := v.f.links.take(node)
		if !warm {
			var err error
			if l, err = v.f.links.connect(ctx, node); err != nil {
				pair.Fail(err)
				return nil
			}
		}
		if !relay.Takes(l.Conn) || l.in.Buffered() > 0 {
			v.f.links.put(l)
			pair.Fail(errors.ErrUnsupported)
			return nil
		}
		links, from := v.f.links, l.origin // alone: as long as the link lives it should keep neither this client nor the buffer
		pair.Bring(l.Conn, warm, func() bool { return links.fit(from) })
		return nil
	})
}

// full and unanswered are what peers are told.
const (
	full       = "this machine serves as many streams as it can"
	unanswered = "the task does not answer: "
)

// peer is another machine's meshproxy that asks for streams by one link.
type peer struct {
	f    *Forwarder
	node string
}

// attendPeer has the loops serve a connection from a peer. It ends with the link, or has what is left of it: see relay.Call.
func (f *Forwarder) attendPeer(ctx context.Context, conn net.Conn, node string) (left net.Conn, read []byte) {
	over := make(chan struct{})
	f.tasks.Go(ctx, "link of "+node, func(ctx context.Context) error {
		defer close(over)
		l, err := f.relay.Serve(conn, &peer{f, node})
		if err != nil {
			return err
		}
		select {
		case <-l.Done():
		case <-ctx.Done():
			l.Finish()
			select {
			case <-l.Done():
			case <-time.After(f.bounds.last):
				l.Cut()
				<-l.Done()
			}
		}
		left, read = l.Left()
		return nil
	})
	<-over
	return left, read
}

// Ask is relay.Peer's.
func (p *peer) Ask(header []byte) relay.Call {
	h := &meshv1.ForwardHeader{}
	if err := proto.Unmarshal(header, h); err != nil {
		return relay.Call{}
	}
	if h.GetNetwork() == "udp" {
		return relay.Call{Apart: true}
	}
	address, client, reason := p.f.wanted(h, p.node)
	if reason == "" {
		select {
		case p.f.inbound <- struct{}{}:
			return relay.Call{Callee: &callee{f: p.f}, To: address, From: p.f.source(client, address)}
		default:
			reason = full
		}
	}
	p.f.meter.inbound.WithLabelValues("refused").Inc()
	return relay.Call{Reply: replyOf(reason)}
}

// Connect is relay.Peer's.
func (p *peer) Connect(to netip.AddrPort, from netip.Addr) (fd int, err error) {
	return run.Connect(p.f.env.Net, to, from)
}

// callee is a stream from a peer that has its place.
type callee struct{ f *Forwarder }

// Reply is relay.Callee's.
func (c *callee) Reply(err error) []byte {
	if err != nil {
		c.f.meter.inbound.WithLabelValues("refused").Inc()
		return replyOf(unanswered + err.Error())
	}
	c.f.meter.inbound.WithLabelValues("served").Inc()
	return replyOf("")
}

// Ended is relay.Callee's.
func (c *callee) Ended() { <-c.f.inbound }

// mostReason bounds what a refusal says: it may have a peer's words in it.
const mostReason = 1000

func replyOf(reason string) []byte {
	reason = strings.ToValidUTF8(reason[:min(len(reason), mostReason)], "")
	reply, _ := proto.Marshal(&meshv1.ForwardReply{Error: reason}) // a text
	return reply
}
