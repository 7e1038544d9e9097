package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

// inn is a host that leads everybody to one place, or nowhere, and its guests.
type inn struct {
	t      *testing.T
	head   string
	pairs  chan *Pair
	joined chan struct{}
	aside  chan *Socket
	ended  chan struct{}

	hold sync.Mutex // has the loop wait; guards below
	to   netip.AddrPort
}

func (i *inn) Greet(p *Pair, _, _ netip.AddrPort) Lead {
	i.hold.Lock()
	defer i.hold.Unlock()
	i.pairs <- p
	return Lead{Guest: i, To: i.to, Head: []byte(i.head)}
}

func (i *inn) Connect(to netip.AddrPort, from netip.Addr) (int, error) {
	return run.Connect(run.Env{}.OrMachine("test").Net, to, from)
}

func (i *inn) Joined() { i.joined <- struct{}{} }

func (i *inn) Aside(s *Socket, _ error) { i.aside <- s }

func (i *inn) Ended() {
	i.ended <- struct{}{}
	i.hold.Lock()
	i.hold.Unlock() //nolint:staticcheck // it has waited
}

// opened is a relay that runs, with a door of so many places.
func opened(t *testing.T, most int, i *inn) (d *Door, address string) {
	t.Helper()
	i.t, i.pairs, i.aside, i.ended = t, make(chan *Pair, 100), make(chan *Socket, 100), make(chan struct{}, 100)
	i.joined = make(chan struct{}, 100)
	r := New()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, testx.Env(t).Log) }()
	l, err := run.Env{}.OrMachine("test").Net.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	if d, err = r.Open(l, most, i); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d, address
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// echoes is a server that says what it hears.
func echoes(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func hears(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("heard %q, %v, want %q", got, err, want)
	}
}

func within[T any](t *testing.T, from <-chan T, what string) (got T) {
	t.Helper()
	select {
	case got = <-from:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: nothing in 10 s", what)
	}
	return got
}

// TestDoorTakesNoMoreThanItHasPlaces: the next ones wait in the kernel's queue, and come in when somebody leaves. A door that is closed
// has gone when the last one has left.
func TestDoorTakesNoMoreThanItHasPlaces(t *testing.T) {
	i := &inn{to: echoes(t), head: "hello "}
	d, address := opened(t, 2, i)
	var in []net.Conn
	for range 2 {
		c := dial(t, address)
		_, _ = io.WriteString(c, "x")
		hears(t, c, "hello x")
		in = append(in, c)
	}
	third := dial(t, address)
	_, _ = io.WriteString(third, "y")
	if err := within(t, d.Stalled, "that all places are taken"); err != nil {
		t.Errorf("the door stalls because of %v", err)
	}
	if d.Resume() || len(i.pairs) != 2 {
		t.Errorf("%d have come in, want 2", len(i.pairs))
	}
	in[0].Close()
	within(t, i.ended, "the end of one")
	hears(t, third, "hello y")
	d.Close()
	select {
	case <-d.Gone():
		t.Error("a door has gone while some are in")
	default:
	}
	in[1].Close()
	third.Close()
	within(t, d.Gone(), "the last one has left")
}

// TestDoorTriesAgain after the kernel could not accept.
func TestDoorTriesAgain(t *testing.T) {
	i := &inn{to: echoes(t)}
	d, address := opened(t, 2, i)
	d.pause(unix.EMFILE)
	if err := within(t, d.Stalled, "why"); !errors.Is(err, unix.EMFILE) {
		t.Errorf("the door stalls because of %v", err)
	}
	c := dial(t, address)
	_, _ = io.WriteString(c, "x")
	if len(i.pairs) != 0 {
		t.Error("somebody came in")
	}
	if !d.Resume() {
		t.Error("there are no places")
	}
	hears(t, c, "x")
}

// TestDoorThatCannotBeResumedSaysSo: the kernel has no room to wait for its clients. It is shut as a whole, and tried again.
func TestDoorThatCannotBeResumedSaysSo(t *testing.T) {
	i := &inn{to: echoes(t)}
	d, address := opened(t, 2, i)
	d.pause(nil)
	within(t, d.Stalled, "that it pauses")
	loops := d.relay.all()
	last := loops[len(loops)-1]
	if err := unix.EpollCtl(last.epoll, unix.EPOLL_CTL_ADD, d.fd, &unix.EpollEvent{}); err != nil { // it refuses the same again
		t.Fatal(err)
	}
	if d.Resume() {
		t.Error("it is resumed, but nobody waits for its clients")
	}
	if err := within(t, d.Stalled, "why"); !errors.Is(err, unix.EEXIST) {
		t.Errorf("it stalls because of %v", err)
	}
	if !d.Resume() {
		t.Error("it is not resumed when there is room again")
	}
	c := dial(t, address)
	_, _ = io.WriteString(c, "x")
	hears(t, c, "x")
}

// TestWhoComesInHasItsListenersOptions: they are not set for each connection.
func TestWhoComesInHasItsListenersOptions(t *testing.T) {
	i := &inn{}
	_, address := opened(t, 2, i)
	dial(t, address)
	s := within(t, i.aside, "a client")
	defer s.Leave()
	defer unix.Close(s.fd)
	for name, option := range map[string][2]int{
		"TCP_NODELAY": {unix.IPPROTO_TCP, unix.TCP_NODELAY}, "SO_KEEPALIVE": {unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	} {
		if on, err := unix.GetsockoptInt(s.fd, option[0], option[1]); err != nil || on == 0 {
			t.Errorf("%s is %d, %v", name, on, err)
		}
	}
	if idle, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE); err != nil || idle != 15 {
		t.Errorf("it is probed after %d s, %v", idle, err)
	}
}

// TestSilentOneIsGivenUp after a while: its client is the guest's then.
func TestSilentOneIsGivenUp(t *testing.T) {
	i := &inn{to: silent(t)}
	_, address := opened(t, 4, i)
	dial(t, address)
	leave(t, within(t, i.aside, "a client"))
	if len(i.ended) > 0 {
		t.Error("it has ended, too")
	}
}

// TestClientThatIsGivenUpIsNotWaitedFor while it is still led to somebody, and ends once.
func TestClientThatIsGivenUpIsNotWaitedFor(t *testing.T) {
	i := &inn{to: silent(t)}
	d, address := opened(t, 4, i)
	c := dial(t, address)
	within(t, i.pairs, "a client").Reset()
	select {
	case <-i.ended:
		if _, err := io.ReadAll(c); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("heard %v, want a reset", err)
		}
	case s := <-i.aside: // on a machine that is busy for a second the loop was faster
		leave(t, s)
	}
	d.Close()
	within(t, d.Gone(), "it has left")
	if len(i.ended)+len(i.aside) > 0 {
		t.Error("it has ended twice")
	}
}

func leave(t *testing.T, s *Socket) {
	t.Helper()
	if err := unix.Close(s.fd); err != nil {
		t.Error(err)
	}
	s.Leave()
}

// silent is a place that does not answer: its queue is full, so that the kernel drops who comes.
func silent(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(own.(*unix.SockaddrInet4).Port))
	dial(t, at.String())
	return at
}

// TestWhoIsLedHearsNobodysNews: the socket by which a client is led on gets the number of another that was closed a moment ago, of which
// news came in the same breath. It is not taken for connected because of them: its guest hears that it was refused.
func TestWhoIsLedHearsNobodysNews(t *testing.T) {
	before := runtime.GOMAXPROCS(1) // so that there is one loop
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	servers, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i := &inn{to: netip.MustParseAddrPort(servers.Addr().String())}
	_, address := opened(t, 4, i)
	calls := func() (client *net.TCPConn, server net.Conn) {
		client = dial(t, address).(*net.TCPConn)
		if server, err = servers.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		within(t, i.joined, "a client")
		if err := client.SetLinger(0); err != nil { // it ends by a reset
			t.Fatal(err)
		}
		return client, server
	}
	noHoles(t)
	first, _ := calls()
	second, server := calls()
	servers.Close()

	i.hold.Lock()
	first.Close()
	within(t, i.ended, "the end of the first") // and the loop waits, while all of these come
	second.Close()
	dial(t, address)
	_, _ = io.WriteString(server, "news")
	noHoles(t)
	i.hold.Unlock()
	select {
	case s := <-i.aside:
		leave(t, s)
	case <-i.joined:
		t.Error("it is connected with nobody")
	}
}

// noHoles has the next sockets numbered upwards, or by numbers that are freed from now on, the lowest one first.
func noHoles(t *testing.T) {
	t.Helper()
	for range 1000 {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		open, err := os.ReadDir("/proc/self/fd") // with its own
		if err != nil {
			t.Fatal(err)
		}
		if fd >= len(open)-2 {
			return
		}
	}
	t.Fatal("there are holes among the numbers still")
}
