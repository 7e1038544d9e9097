package forward_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/hop"
)

// TestNextStreamMayFollowAtOnce: a header that comes in one piece with the end of the stream before it is answered, and so is one after a
// refusal.
func TestNextStreamMayFollowAtOnce(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		task := r.task("web.1", "b", func(c net.Conn) { _, _ = io.Copy(c, c); c.Close() })
		r.apply(publish(t, "tcp", task))
		c := r.called(t)
		good := framed(t, &meshv1.ForwardHeader{TaskId: "web.1", Address: task.Address.String(), Network: "tcp"})
		bad := framed(t, &meshv1.ForwardHeader{TaskId: "web.2", Address: task.Address.String(), Network: "tcp"})
		words := append(hop.Chunk([]byte("..words")), 0, 0)
		said := append(append(append(append([]byte{}, bad...), good...), words...), bad...)
		said = append(append(append(said, good...), words...), good...)
		if _, err := c.Write(said); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"refused", "words", "refused", "words", ""} {
			reply := &meshv1.ForwardReply{}
			if err := proto.Unmarshal(heard(t, c, 4), reply); err != nil {
				t.Fatal(err)
			}
			if refused := reply.GetError() != ""; refused != (want == "refused") {
				t.Fatalf("reply %d: %q, want %q", i, reply.GetError(), want)
			}
			if want != "words" {
				continue
			}
			if got := string(heard(t, c, 2)); got != want {
				t.Errorf("stream %d said %q", i, got)
			}
			if end := heard(t, c, 2); len(end) != 0 {
				t.Errorf("stream %d has no end but %q", i, end)
			}
		}
	})
}

// TestLongestHeader is answered, in whatever pieces it comes; a longer one ends the link.
func TestLongestHeader(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		r.apply()
		for over := range 2 {
			h := &meshv1.ForwardHeader{Client: strings.Repeat("x", hop.MostMessage-3+over)} // behind its tag and its length
			data := framed(t, h)
			for _, cut := range []int{1, 4, hop.MostMessage + 1, hop.MostMessage + 3} {
				c := r.called(t)
				for _, part := range [][]byte{data[:cut], data[cut:]} {
					if _, err := c.Write(part); err != nil {
						break // it is not read to its end
					}
				}
				if over > 0 {
					if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%d bytes and the rest: %v", cut, err)
					}
					continue
				}
				reply := &meshv1.ForwardReply{}
				if err := proto.Unmarshal(heard(t, c, 4), reply); err != nil || reply.GetError() == "" {
					t.Errorf("%d bytes and the rest: replied %q, %v", cut, reply.GetError(), err)
				}
			}
		}
	})
}

// TestPeerThatGoesIsNotAnEnd: a peer that goes in the middle of a stream, in due form, has the client hear a reset; after the end it
// harms nobody.
func TestPeerThatGoesIsNotAnEnd(t *testing.T) {
	for _, c := range []struct {
		name, said string
		whole      bool
	}{{"in the middle", "\x00\x04half", false}, {"after the end", "\x00\x04half\x00\x00", true}} {
		t.Run(c.name, func(t *testing.T) {
			kinds(t, func(t *testing.T, r *rig) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				var served sync.WaitGroup
				t.Cleanup(func() { l.Close(); served.Wait() })
				served.Go(func() {
					conn, err := l.Accept()
					if err == nil && r.keys != nil {
						conn, err = r.keys.Server(r.ctx, conn)
					}
					if err != nil {
						return
					}
					defer conn.Close()
					heard(t, conn, 4)
					_, _ = conn.Write(append([]byte{0, 0, 0, 0}, c.said...))
				})
				r.peers = map[string][]string{"b": {l.Addr().String()}}
				p := publish(t, "tcp", r.task("web.1", "b", nil))
				r.apply(p)
				got, err := ask(at("127.0.0.1", p))
				if c.whole && (got != "half" || err != nil) || !c.whole && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("heard %q, %v", got, err)
				}
			})
		})
	}
}

// TestStreamsGiveTheirPlacesBack, served, refused or not answered.
func TestStreamsGiveTheirPlacesBack(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		p := publish(t, "tcp", r.task("web.1", "b", nil), r.dead("web.2", "b"), r.task("web.3", "b", nil))
		r.apply(p)
		r.b.Withdraw("web.3")
		for range 6 {
			if got, err := ask(at("127.0.0.1", p)); got != "web.1" {
				t.Fatalf("answered %q, %v", got, err)
			}
		}
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for begun := time.Now(); r.b.Inbound() > 0; <-tick.C { // the client may be ahead of the loop
			if time.Since(begun) > 5*time.Second {
				t.Fatalf("%d places are still taken", r.b.Inbound())
			}
		}
	})
}

// called is a connection to b's meshproxy.
func (r *rig) called(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", r.door.Addr().String())
	if err == nil && r.keys != nil {
		c, err = r.keys.Client(r.ctx, c)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func framed(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return hop.Message(data)
}

// heard reads what comes after its length, which has so many bytes.
func heard(t *testing.T, c net.Conn, head int) []byte {
	t.Helper()
	size := make([]byte, 4)
	if _, err := io.ReadFull(c, size[4-head:]); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, binary.BigEndian.Uint32(size))
	if _, err := io.ReadFull(c, data); err != nil {
		t.Fatal(err)
	}
	return data
}

// TestMovedMachineIsDialledAnew: no link to where it was carries another stream, which would wait for an answer from nobody.
func TestMovedMachineIsDialledAnew(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		p := publish(t, "tcp", r.task("web.1", "b", nil))
		talk := func() {
			if got, err := ask(at("127.0.0.1", p)); got != "web.1" {
				t.Fatalf("answered %q, %v", got, err)
			}
		}
		for range 3 {
			r.apply(p)
			for range 10 {
				talk()
			}
			before := r.dials.Load()
			_, port, err := net.SplitHostPort(r.peers["b"][0])
			if err != nil {
				t.Fatal(err)
			}
			r.peers = map[string][]string{"b": {r.peers["b"][0], net.JoinHostPort("127.0.0.1", port)}}
			r.apply(p)
			if talk(); r.dials.Load() == before {
				t.Fatal("a link to its former address was used")
			}
			r.peers = map[string][]string{"b": r.peers["b"][:1]}
		}
	})
}

// heap is what is in use.
func heap() int {
	runtime.GC() // twice: what a pool has survives the first
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestOpenConnectionsHoldLittle: one to another machine holds what TLS needs at both ends, and no buffer beside it.
func TestOpenConnectionsHoldLittle(t *testing.T) {
	const many, most = 100, 40 << 10
	r := newRig(t)
	p := publish(t, "tcp", r.task("web.1", "b", func(c net.Conn) { _, _ = io.Copy(c, c); c.Close() }))
	r.apply(p)
	open := func(n int) int {
		for range n {
			c, err := net.Dial("tcp", at("127.0.0.1", p))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			if _, err := io.WriteString(c, "x"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		return heap()
	}
	before := open(10)
	if each := (open(many) - before) / many; each > most {
		t.Errorf("a connection holds %d bytes, want at most %d", each, most)
	}
}
