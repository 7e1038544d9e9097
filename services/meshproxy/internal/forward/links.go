package forward

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
)

// A handshake costs more than the rest of a small request: links are kept warm and used again. The receiver waits longer
// than the sender keeps, so that it is mostly the sender who closes. A peer's share must be above what is open to it at once in a busy
// moment: else those beyond it cost a handshake each, again and again.
const (
	keepPerPeer  = 128
	keepTotal    = 512
	keepTime     = time.Minute
	receiverTime = 90 * time.Second
)

// pool keeps the links to peers that carry nothing at the moment, the last used first out.
type pool struct {
	dial  DialPeer
	trust func() <-chan struct{}
	meter *meter

	mu    sync.Mutex // guards all below
	peers map[string][]string
	idle  map[string][]*link
	count int
}

func newPool(dial DialPeer, trust func() <-chan struct{}, m *meter) *pool {
	return &pool{dial: dial, trust: trust, meter: m, idle: map[string][]*link{}}
}

// open begins a stream: it sends the header and waits for the reply. Refused is the peer's reason, if it gave one; then
// the link is in the pool again.
func (p *pool) open(ctx context.Context, node string, h *meshv1.ForwardHeader) (l *link, refused string, err error) {
	for {
		l, warm := p.take(node)
		if !warm {
			if l, err = p.connect(ctx, node); err != nil {
				return nil, "", err
			}
		}
		reply, err := ask(ctx, l, h)
		switch {
		case err == nil && reply.GetError() == "":
			return l, "", nil
		case err == nil:
			p.put(l)
			return nil, reply.GetError(), nil
		}
		l.close()
		// A warm link may have been closed by the peer meanwhile: then the others have, too, and nothing of the client was
		// sent yet. Silence is another matter: the machine is gone, and a new link would only wait again.
		if !warm || ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, "", err
		}
		p.forget(node)
	}
}

func ask(ctx context.Context, l *link, h *meshv1.ForwardHeader) (*meshv1.ForwardReply, error) {
	done := l.until(ctx)
	reply := &meshv1.ForwardReply{}
	err := l.send(h)
	if err == nil {
		err = l.receive(reply)
	}
	if !done() && err == nil {
		err = ctx.Err()
	}
	return reply, err
}

// connect tries the peer's addresses in order.
func (p *pool) connect(ctx context.Context, node string) (*link, error) {
	p.mu.Lock()
	addresses := p.peers[node]
	p.mu.Unlock()
	if len(addresses) == 0 {
		return nil, errs.New(errs.Unavailable, "machine %s has no meshproxy in the tables", node)
	}
	var faults []error
	trust := p.trust() // before the handshake, which then is measured against this trust or a newer one
	for _, a := range addresses {
		conn, err := p.dial(ctx, node, a)
		if err == nil {
			p.meter.dials.Inc()
			l := newLink(conn, node)
			l.addresses, l.trust = addresses, trust
			return l, nil
		}
		faults = append(faults, err)
	}
	return nil, errors.Join(faults...)
}

func (p *pool) take(node string) (*link, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := p.idle[node]
	if len(links) == 0 {
		return nil, false
	}
	if links[len(links)-1].distrusted() {
		p.drop(node) // at worst a few that were dialled since go, too, which costs a handshake each
		return nil, false
	}
	l := links[len(links)-1]
	p.idle[node] = links[:len(links)-1]
	p.count--
	return l, true
}

// put keeps a link whose stream has ended whole, if there is room and its machine is still in the tables where it was.
func (p *pool) put(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.lists(l.origin) || len(p.idle[l.node]) >= keepPerPeer || p.count >= keepTotal {
		l.close()
		return
	}
	l.since = time.Now()
	p.idle[l.node] = append(p.idle[l.node], l)
	p.count++
}

// fit says that a link of this origin may carry another stream.
func (p *pool) fit(o origin) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lists(o) && !o.distrusted()
}

// lists needs the lock. It says that the tables still have a link's machine where the link was made to.
func (p *pool) lists(o origin) bool {
	now, known := p.peers[o.node]
	return known && slices.Equal(now, o.addresses)
}

// setPeers lets go of machines that have left or moved.
func (p *pool) setPeers(peers map[string][]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for node := range p.idle {
		if !slices.Equal(p.peers[node], peers[node]) {
			p.drop(node)
		}
	}
	p.peers = peers
}

func (p *pool) forget(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(node)
}

// drop needs the lock.
func (p *pool) drop(node string) {
	for _, l := range p.idle[node] {
		l.close()
		p.count--
	}
	delete(p.idle, node)
}

// sweep closes what has been idle for long. Others are the warm links that are not here.
func (p *pool) sweep(others int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for node, links := range p.idle {
		p.idle[node] = slices.DeleteFunc(links, func(l *link) bool {
			old := time.Since(l.since) > keepTime || l.distrusted()
			if old {
				l.close()
				p.count--
			}
			return old
		})
		if len(p.idle[node]) == 0 {
			delete(p.idle, node)
		}
	}
	p.meter.links.Set(float64(p.count + others))
}

// closeAll closes all idle links, at the end.
func (p *pool) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for node := range p.idle {
		p.drop(node)
	}
}
