package relay

import (
	"errors"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/hop"
)

// Peer decides about the streams that another machine's meshproxy asks for. Loops call it, and it must not wait.
type Peer interface {
	// Ask says what becomes of a stream.
	Ask(header []byte) Call
	// Connect begins a connection and returns its socket (run.Connect).
	Connect(to netip.AddrPort, from netip.Addr) (fd int, err error)
}

// Call is what becomes of a stream: with Apart its link leaves the loops with it, without a Callee it is refused with the reply, and
// without a reply its link is closed.
type Call struct {
	Callee Callee
	To     netip.AddrPort
	From   netip.Addr
	Reply  []byte
	Apart  bool
}

// Callee is told what becomes of a stream, by its loop: it must not wait.
type Callee interface {
	// Reply is what the peer is told: nil is no error.
	Reply(err error) []byte
	// Ended is the last that it hears.
	Ended()
}

// Serve takes over a connection that another machine's meshproxy has made, and serves what it asks for. With an error it is closed.
func (r *Relay) Serve(conn net.Conn, peer Peer) (*Link, error) {
	l, err := r.turn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	k, err := newLink(l, conn)
	if err != nil {
		return nil, err
	}
	defer close(k.posted)
	k.peer = peer
	if !l.post(order{link: func() {
		l.begin(k)
		l.hear(k)
	}}) {
		k.abandon()
		return nil, os.ErrClosed
	}
	return k, nil
}

// asksAtOnce bounds how many refusals a peer gets until others have their turn.
const asksAtOnce = 16

// asked looks at what a peer asks for.
func (l *loop) asked(k *Link) {
	for n := 0; k.pair == nil && !k.over; n++ {
		if n == asksAtOnce {
			l.links.eager = append(l.links.eager, k)
			return
		}
		header, rest, whole, sound := hop.Cut(k.early)
		if !sound || !whole && k.fault != nil {
			l.closeLink(k)
			return
		}
		if !whole {
			return
		}
		call := k.peer.Ask(header)
		switch {
		case call.Apart:
			l.part(k)
			return
		case call.Callee == nil && call.Reply == nil:
			l.closeLink(k)
			return
		}
		if call.Callee == nil {
			k.early = rest
			l.reply(k, call.Reply)
			continue
		}
		fd, err := k.peer.Connect(call.To, call.From)
		if errors.Is(err, errors.ErrUnsupported) { // whoever has the link can dial otherwise
			call.Callee.Ended()
			l.part(k)
			return
		}
		k.early = rest
		p := newPair(l, -1, -1)
		p.call, k.pair = call.Callee, p
		p.with(&k.end, &p.own[1])
		l.pairs.Add(1)
		l.dial(p, fd, err)
	}
}

// reply says one. What is wrong with the link is found by who reads from it.
func (l *loop) reply(k *Link, reply []byte) {
	err := k.say(&l.store, hop.Message(reply))
	k.fault = errors.Join(k.fault, err, k.flush(&l.store))
}

// unserved replies that a task can't be reached. The link may carry another stream.
func (l *loop) unserved(p *Pair, err error) {
	l.reply(p.ends[0].link, p.call.Reply(err))
	l.end(p, false)
}

// part has a link leave the loop, with what was read of it.
func (l *loop) part(k *Link) {
	if k.behind() > 0 { // it asks, and does not listen
		l.closeLink(k)
		return
	}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, k.fd, nil); err != nil {
		l.closeLink(k)
		return
	}
	delete(l.ends, int32(k.fd))
	k.over, k.left = true, k.seal.Give(&conn{os.NewFile(uintptr(k.fd), "link")})
	close(k.done)
}
