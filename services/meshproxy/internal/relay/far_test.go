package relay_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/hop/hoptest"
	"github.com/shoalproject/shoal/services/meshproxy/internal/relay"
)

// kinds has the same hold between two sockets, and where a link of two relays' is between them.
func kinds(t *testing.T, promise func(t *testing.T, r *rig)) {
	t.Run("sockets", func(t *testing.T) { promise(t, newRig(t)) })
	t.Run("link", func(t *testing.T) {
		r := newRig(t)
		r.far = newFar(r)
		promise(t, r)
	})
}

// far is two places of one relay with a link between them: who comes in by the door of the first is led to the task of the second.
type far struct {
	*rig
	keys  *hoptest.Keys
	peers net.Listener // of the second's meshproxy
	doors map[bool]net.Addr
	tasks map[bool]net.Listener
	pairs chan *call
	calls chan callee

	mu    sync.Mutex // guards below
	small bool       // is led to the task that has little room
	dials int
	// A link is fit for one stream alone, and has little room.
	once bool
}

func newFar(r *rig) *far {
	f := &far{rig: r, keys: hoptest.New(r.t), doors: map[bool]net.Addr{}, tasks: map[bool]net.Listener{}, pairs: make(chan *call, 1), calls: make(chan callee, 1)}
	var err error
	if f.peers, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { f.peers.Close() })
	for _, small := range []bool{false, true} {
		l := f.listen(unix.SO_SNDBUF, small)
		f.doors[small], f.tasks[small] = l.Addr(), f.listen(unix.SO_RCVBUF, small)
		r.t.Cleanup(func() { f.tasks[small].Close() })
		d, err := r.r.Open(l, 1000, f)
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(d.Close)
	}
	return f
}

// narrow leaves small sockets little room.
func narrow(option int, small bool) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) (err error) {
		if !small {
			return nil
		}
		fault := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 4096) })
		return errors.Join(err, fault)
	}
}

func (f *far) listen(option int, small bool) net.Listener {
	config := net.ListenConfig{Control: narrow(option, small)}
	l, err := config.Listen(f.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	return l
}

func (f *far) joined(small bool) (a, b *net.TCPConn, p joint) {
	f.t.Helper()
	f.mu.Lock()
	f.small = small
	f.mu.Unlock()
	d := net.Dialer{Control: narrow(unix.SO_RCVBUF, small)}
	near, err := d.DialContext(f.t.Context(), "tcp", f.doors[small].String())
	if err != nil {
		f.t.Fatal(err)
	}
	beyond, err := f.tasks[small].Accept()
	if err != nil {
		f.t.Fatal(err)
	}
	a, b = near.(*net.TCPConn), beyond.(*net.TCPConn)
	for _, c := range []*net.TCPConn{a, b} {
		f.t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			f.t.Fatal(err)
		}
	}
	if small {
		if err := errors.Join(a.SetWriteBuffer(4096), b.SetWriteBuffer(4096)); err != nil {
			f.t.Fatal(err)
		}
	}
	c := <-f.pairs
	<-c.joined
	served, done := <-f.calls, make(chan struct{})
	go func() {
		<-c.ended
		<-served
		close(done)
	}()
	return a, b, joint{done, c.pair.Reset}
}

// call is a client on his way to the task.
type call struct {
	*far
	pair          *relay.Pair
	joined, ended chan struct{}
}

func (f *far) Greet(p *relay.Pair, _, _ netip.AddrPort) relay.Lead {
	c := &call{f, p, make(chan struct{}), make(chan struct{})}
	f.pairs <- c
	return relay.Lead{Guest: c, Far: c}
}

// TestLinksAreUsedAgain by the next client, until they have carried nothing for long; one that carries a stream lives on however long both
// ends are silent.
func TestLinksAreUsedAgain(t *testing.T) {
	r := newRig(t)
	r.far = newFar(r)
	talk := func() {
		t.Helper()
		a, b, p := r.joined(false)
		speaks(t, a, b)
		if err := errors.Join(a.CloseWrite(), b.CloseWrite()); err != nil {
			t.Fatal(err)
		}
		<-p.done
	}
	for range 100 {
		talk()
	}
	r.far.mu.Lock()
	dials := r.far.dials
	r.far.mu.Unlock()
	if dials > 50 { // each loop has some of its own, and a client may be ahead of one's way back
		t.Errorf("100 connections made %d links", dials)
	}
	until(t, "a link is warm", func() bool { return r.r.Warm() > 0 })
	a, b, _ := r.joined(false)
	r.r.Age(20 * time.Minute)
	r.r.Sweep()
	until(t, "no link is warm", func() bool { return r.r.Warm() == 0 })
	speaks(t, a, b)
	speaks(t, b, a)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); !ok(); <-tick.C {
		if time.Since(begun) > 5*time.Second {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

func speaks(t *testing.T, from, to net.Conn) {
	t.Helper()
	got := make([]byte, 5)
	if _, err := io.WriteString(from, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, got); err != nil || string(got) != "hello" {
		t.Fatalf("heard %q, %v", got, err)
	}
}

func (f *far) Connect(to netip.AddrPort, from netip.Addr) (int, error) {
	fd, err := run.Connect(run.Env{}.OrMachine("test").Net, to, from)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.small && err == nil:
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)
	case f.once && err == nil:
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, roomOfOnce)
	}
	return fd, err
}

func (c *call) Joined() { close(c.joined) }

func (c *call) Aside(s *relay.Socket, err error) {
	c.t.Errorf("it was not led to the task: %v", err)
	s.Conn().Close()
	s.Leave()
}

func (c *call) Ended() { close(c.ended) }

func (c *call) Node() string { return "b" }

func (c *call) Header() []byte { return []byte("the task") }

func (c *call) Answer(reply []byte) error {
	if string(reply) != "yes" {
		return errors.New(string(reply))
	}
	return nil
}

// Dial makes a link, and both its ends the relay's.
func (c *call) Dial(p *relay.Pair) {
	c.mu.Lock()
	c.dials++
	c.mu.Unlock()
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.t.Context()), 10*time.Second)
		defer cancel()
		raw, err := net.Dial("tcp", c.peers.Addr().String())
		if err != nil {
			p.Fail(err)
			return
		}
		if !c.fit() {
			if err := raw.(*net.TCPConn).SetWriteBuffer(roomOfOnce); err != nil {
				p.Fail(err)
				return
			}
		}
		served := make(chan error, 1)
		go func() { served <- c.serve(ctx) }()
		conn, err := c.keys.Client(ctx, raw)
		if err = errors.Join(err, <-served); err != nil {
			p.Fail(err)
			return
		}
		p.Bring(conn, false, c.fit)
	}()
}

// roomOfOnce is what sockets have where links are for one stream.
const roomOfOnce = 64 << 10

func (f *far) fit() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.once
}

func (f *far) serve(ctx context.Context) error {
	raw, err := f.peers.Accept()
	if err != nil {
		return err
	}
	if !f.fit() {
		if err := raw.(*net.TCPConn).SetReadBuffer(roomOfOnce); err != nil {
			return err
		}
	}
	conn, err := f.keys.Server(ctx, raw)
	if err != nil {
		return err
	}
	_, err = f.r.Serve(conn, peer{f})
	return err
}

// peer serves what the first asks for.
type peer struct{ *far }

func (p peer) Ask(header []byte) relay.Call {
	if string(header) != "the task" {
		return relay.Call{Reply: []byte("what?")}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := make(callee)
	p.calls <- c
	return relay.Call{Callee: c, To: netip.MustParseAddrPort(p.tasks[p.small].Addr().String())}
}

// callee is closed when its stream has ended.
type callee chan struct{}

func (callee) Reply(err error) []byte {
	if err != nil {
		return []byte(err.Error())
	}
	return []byte("yes")
}

func (c callee) Ended() { close(c) }
