package relay_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/meshproxy/internal/hop/hoptest"
	"github.com/shoalproject/shoal/services/meshproxy/internal/relay"
)

// silent leads clients to another machine that never answers. The second of them is led there by a warm link that its peer closes, and gets
// the next one late.
type silent struct {
	t     *testing.T
	keys  *hoptest.Keys
	peers net.Listener
	dials int
	asked chan struct{} // has a token for each who has asked
	again chan struct{} // the second asks again
	aside chan time.Time
}

func (s *silent) Greet(*relay.Pair, netip.AddrPort, netip.AddrPort) relay.Lead {
	return relay.Lead{Guest: s, Far: s}
}

func (s *silent) Connect(netip.AddrPort, netip.Addr) (int, error) { return -1, errors.ErrUnsupported }
func (s *silent) Joined()                                         { s.t.Error("it is joined with nobody") }
func (s *silent) Ended()                                          {}
func (s *silent) Node() string                                    { return "b" }
func (s *silent) Header() []byte                                  { return []byte("the task") }
func (s *silent) Answer([]byte) error                             { return nil }

func (s *silent) Aside(c *relay.Socket, err error) {
	if !errors.Is(err, relay.ErrSilent) {
		s.t.Errorf("it is aside for another reason: %v", err)
	}
	c.Conn().Close()
	c.Leave()
	s.aside <- time.Now()
}

func (s *silent) Dial(p *relay.Pair) {
	s.dials++
	warm, wait := s.dials == 2, time.Duration(0)
	if s.dials == 3 {
		close(s.again)
		wait = 1200 * time.Millisecond
	}
	time.AfterFunc(wait, func() {
		served := make(chan error, 1)
		go func() { served <- s.serve(warm) }()
		raw, err := net.Dial("tcp", s.peers.Addr().String())
		if err != nil {
			p.Fail(err)
			return
		}
		conn, err := s.keys.Client(context.Background(), raw)
		if err != nil {
			p.Fail(err)
			return
		}
		p.Bring(conn, warm, func() bool { return true })
		if err := <-served; err != nil {
			s.t.Error(err)
		}
	})
}

// serve hears what is asked, and answers nothing.
func (s *silent) serve(warm bool) error {
	raw, err := s.peers.Accept()
	if err != nil {
		return err
	}
	defer raw.Close()
	conn, err := s.keys.Server(context.Background(), raw)
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, 4))
	}
	s.asked <- struct{}{}
	if err == nil && !warm {
		_, err = io.Copy(io.Discard, conn)
	}
	return err
}

// TestNobodyWaitsForAnother: whoever is not answered is given up in time, though one who had asked before him has asked again.
func TestNobodyWaitsForAnother(t *testing.T) {
	one := runtime.GOMAXPROCS(1) // so that one loop has both
	t.Cleanup(func() { runtime.GOMAXPROCS(one) })
	r := newRig(t)
	s := &silent{t: t, keys: hoptest.New(t), asked: make(chan struct{}, 4), again: make(chan struct{}), aside: make(chan time.Time, 3)}
	var err error
	if s.peers, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	d, err := r.r.Open(l, 10, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(); s.peers.Close() })
	dial := func() {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	dial()
	<-s.asked
	dial()
	<-s.again
	begun := time.Now()
	dial()
	<-s.aside
	if waited := (<-s.aside).Sub(begun); waited > 2400*time.Millisecond {
		t.Errorf("it waited for %v", waited)
	}
	<-s.aside
}
