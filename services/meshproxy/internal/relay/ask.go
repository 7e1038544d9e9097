package relay

import (
	"errors"
	"net"
	"time"

	"github.com/shoalproject/shoal/services/meshproxy/internal/hop"
)

// askLimit bounds the wait for a peer's answer: it has a try of its own within it.
const askLimit = 1500 * time.Millisecond

// Far leads to a task of another machine, by a link to its meshproxy. Loops call it, and it must not wait.
type Far interface {
	// Node is the machine.
	Node() string
	// Header is what its meshproxy is asked.
	Header() []byte
	// Answer takes the reply: with an error it has refused, and what is said next is another stream's.
	Answer(reply []byte) error
	// Dial begins to make a link, since none is warm, and has Bring or Fail called, one of them once.
	Dial(p *Pair)
}

// ask asks for a pair's task.
func (l *loop) ask(p *Pair) {
	if k := l.warm(p.visit.far.Node()); k != nil {
		l.askBy(p, k, true)
		return
	}
	l.links.missing[p] = struct{}{}
	p.visit.far.Dial(p)
}

func (l *loop) askBy(p *Pair, k *Link, warm bool) {
	k.pair = p
	p.with(p.ends[0], &k.end)
	p.asking, p.begun, p.visit.warm = true, time.Now(), warm
	err := k.say(&l.store, hop.Message(p.visit.far.Header()))
	if err = errors.Join(err, k.flush(&l.store)); err != nil {
		l.unanswered(p, err)
		return
	}
	l.asks = append(l.asks, trial{p, p.begun})
	if k.says() {
		l.links.eager = append(l.links.eager, k) // a new one: what came with its handshake
	}
}

// Bring gives a pair the link that it lacks. Warm says that it had another stream before; fit whether it may have another one after.
func (p *Pair) Bring(conn net.Conn, warm bool, fit func() bool) {
	l := p.loop
	k, err := newLink(l, conn)
	if err != nil {
		p.Fail(err)
		return
	}
	defer close(k.posted)
	k.node, k.fit = p.visit.far.Node(), fit
	if !l.post(order{link: func() {
		l.begin(k)
		delete(l.links.missing, p)
		if p.over { // given up meanwhile
			l.release(k, true)
			return
		}
		l.askBy(p, k, warm)
	}}) {
		k.abandon()
	}
}

// Fail says that there is no link.
func (p *Pair) Fail(err error) {
	l := p.loop
	l.post(order{link: func() {
		delete(l.links.missing, p)
		if !p.over {
			l.aside(p, err)
		}
	}})
}

// answered looks whether there is a reply.
func (l *loop) answered(k *Link) {
	p := k.pair
	reply, rest, whole, sound := hop.Cut(k.early)
	switch {
	case !sound:
		l.unanswered(p, errors.New("a reply that is too long"))
		return
	case !whole && k.fault != nil:
		l.unanswered(p, k.fault)
		return
	case !whole:
		return
	}
	p.asking = false
	k.early = rest
	refused := p.visit.far.Answer(reply)
	err := refused
	if err == nil {
		err = l.add(p.ends[0])
	}
	if err != nil {
		p.with(p.ends[0], &p.own[1])
		l.release(k, refused != nil)
		l.aside(p, err)
		return
	}
	p.visit.guest.Joined()
	if head := p.visit.head; len(head) > 0 {
		if err := k.say(&l.store, hop.Chunk(append(make([]byte, hop.Head), head...))); err != nil {
			l.end(p, true)
			return
		}
	}
	l.turn(p)
}

// unanswered gives up a link that has been asked. A warm one may have been closed by the peer meanwhile: then the others have, too, and
// nothing of the client was sent yet. Silence is another matter: the machine is gone, and a new link would only wait again.
func (l *loop) unanswered(p *Pair, err error) {
	k := p.ends[1].link
	p.asking = false
	p.with(p.ends[0], &p.own[1])
	l.leave(k)
	if !p.visit.warm || errors.Is(err, ErrSilent) {
		l.aside(p, err)
		return
	}
	for k := l.warm(p.visit.far.Node()); k != nil; k = l.warm(p.visit.far.Node()) {
		l.closeLink(k)
	}
	l.ask(p)
}
