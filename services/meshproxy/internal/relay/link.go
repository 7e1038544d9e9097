package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/hop"
)

const (
	// gulp is how much is read at once from a link.
	gulp = 64 << 10
	// record is more than one of TLS has, with all that is around it (RFC 8446, section 5.2).
	record = 17 << 10
	// mostBehind is what may wait to be sent by a link that is read from: what TLS itself answers.
	mostBehind = 64 << 10
)

// Link is a connection with another machine's meshproxy, by TLS. It carries one stream at a time, of a pair whose one end it is.
type Link struct {
	end
	loop  *loop
	seal  *hop.Seal
	heard hop.Chunks
	early []byte // was opened, and nobody has looked at it
	fault error  // it has ended, after what is early
	lent  bool   // what is to be sent is in the store's memory

	peer  Peer        // whom it serves, of one that was dialled from there
	node  string      // of one that was dialled from here: the machine at the other end,
	fit   func() bool // and whether it may carry another stream
	since time.Time   // it carries nothing
	last  bool        // it is to carry no other stream
	over  bool

	posted chan struct{} // closed when its loop is told of it: nothing that it is told before would find the link
	done   chan struct{}
	left   net.Conn // once it is done: its connection, if that goes on without the loop
}

// Takes says that a connection can be a link.
func Takes(conn net.Conn) bool { return hop.Takes(conn, Able) }

// newLink takes a connection from the runtime. With an error it is closed. Else posted is to be closed.
func newLink(l *loop, conn net.Conn) (*Link, error) {
	k := &Link{loop: l, end: end{fd: -1, readable: true, writable: true}, posted: make(chan struct{}), done: make(chan struct{})}
	k.link = k
	var err error
	seal, ok := hop.Take(conn, func(raw net.Conn) bool {
		k.fd, err = detach(raw)
		return err == nil
	}, func() {
		<-k.posted
		k.Cut()
	})
	if !ok {
		_ = conn.Close() // it was not taken
		return nil, errors.Join(net.ErrClosed, err)
	}
	k.seal = seal
	return k, nil
}

// abandon closes one that no loop has.
func (k *Link) abandon() {
	k.seal.Close()
	closeSocket(k.fd, false)
	close(k.done)
}

// begin has the loop watch a new one. What came with its handshake is inside already.
func (l *loop) begin(k *Link) {
	n, err := k.seal.Open(nil, l.store.plain[:])
	k.early, k.fault, k.since = bytes.Clone(l.store.plain[:n]), err, time.Now()
	if err := l.add(&k.end); err != nil {
		k.fault = err
	}
}

// says says that something may be heard from it.
func (k *Link) says() bool {
	return k.behind() <= mostBehind && (len(k.early) > 0 || k.readable || k.fault != nil)
}

// behind is how much is to be sent.
func (k *Link) behind() int { return len(k.seal.Out()) }

// receive takes what came, and opens it into the store's memory. Cost is how much was read.
func (k *Link) receive(s *store) (data []byte, cost int) {
	if !k.readable || k.fault != nil {
		return nil, 0
	}
	cost, over, err := k.read(s.came[:])
	if over {
		err = io.ErrUnexpectedEOF // only an empty chunk ends a stream: without it, data may be missing
	}
	n := 0
	if cost > 0 {
		n, err = k.seal.Open(s.came[:cost], s.plain[:])
	}
	if err == nil {
		err = k.flush(s) // TLS may have answered
	}
	k.fault = err
	return s.plain[:n], cost
}

// say seals data, which flush sends.
func (k *Link) say(s *store, data []byte) error {
	if k.behind() == 0 {
		k.seal.Put(s.sealed[:0])
		k.lent = true
	}
	return k.seal.Say(data)
}

// flush sends what there is room for. Nothing of the store's memory is used any more then.
func (k *Link) flush(s *store) (err error) {
	out, n := k.seal.Out(), 0
	if len(out) > 0 && k.writable {
		n, err = k.write(out, false)
	}
	rest := out[n:]
	if k.lent {
		s.sealed, k.lent = out[:0], false
		rest = bytes.Clone(rest)
	}
	if len(rest) == 0 {
		rest = nil
	}
	k.seal.Put(rest)
	return err
}

// flush sends what a pair's link is behind with.
func (l *loop) flush(p *Pair) error {
	for _, e := range p.ends {
		if e.link != nil && e.link.behind() > 0 {
			return e.link.flush(&l.store)
		}
	}
	return nil
}

// hear looks at a link that carries nothing, or has asked.
func (l *loop) hear(k *Link) {
	if k.over || k.pair != nil && !k.pair.asking {
		return
	}
	if err := k.flush(&l.store); err != nil {
		k.fault = errors.Join(k.fault, err)
	}
	for k.readable && k.fault == nil && len(k.early) < hop.MessageHead+hop.MostMessage && k.behind() <= mostBehind {
		data, _ := k.receive(&l.store)
		k.early = append(k.early, data...)
	}
	switch {
	case k.pair != nil:
		l.answered(k)
	case k.peer != nil:
		l.asked(k)
	case len(k.early) > 0 || k.fault != nil: // who was dialled speaks when asked
		l.closeLink(k)
	}
}

// release has a link wait for the next stream, if this one has come to its end.
func (l *loop) release(k *Link, whole bool) {
	k.pair, k.since = nil, time.Now()
	switch {
	case !whole:
		l.shut(k, true) // what its peer has of it is not the whole, and it need not come to the end of that to hear so
		return
	case k.fault != nil || k.last || k.peer == nil && (len(k.early) > 0 || !l.keep(k)):
		l.closeLink(k)
		return
	}
	if k.says() {
		l.links.eager = append(l.links.eager, k)
	}
}

// leave closes a link that was asked, and has not answered. A reset would be unjust: its peer may have words of the stream before that its
// task was slow to take.
func (l *loop) leave(k *Link) {
	k.pair = nil
	l.closeLink(k)
}

// closeLink closes one that carries nothing any more.
func (l *loop) closeLink(k *Link) { l.shut(k, false) }

func (l *loop) shut(k *Link, reset bool) {
	if k.over {
		return
	}
	k.over = true
	l.unkeep(k)
	delete(l.ends, int32(k.fd))
	k.seal.Close()
	if !reset {
		_, _ = unix.Write(k.fd, k.seal.Out()) // a farewell, if there is room for it
	}
	closeSocket(k.fd, reset)
	close(k.done)
}

// Done is closed when no loop has it any more.
func (k *Link) Done() <-chan struct{} { return k.done }

// Left is its connection, and what was read of it, if it goes on without the loops: see Call.
func (k *Link) Left() (conn net.Conn, read []byte) { return k.left, k.early }

// Finish has it carry no other stream than the one that it carries.
func (k *Link) Finish() {
	k.loop.post(order{link: func() {
		if k.last = true; k.pair == nil {
			k.loop.closeLink(k)
		}
	}})
}

// Cut ends it, and its stream by a reset.
func (k *Link) Cut() {
	k.loop.post(order{link: func() {
		if p := k.pair; p != nil {
			k.loop.end(p, true)
		} else {
			k.loop.closeLink(k)
		}
	}})
}
