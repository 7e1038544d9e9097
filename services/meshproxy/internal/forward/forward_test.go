package forward_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

func TestTasksAnswerInTurnWhereverTheyRun(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		var tasks []mesh.Backend
		for i := range 7 {
			tasks = append(tasks, r.task(fmt.Sprintf("web.%d", i+1), []string{"a", "b"}[i%2], nil))
		}
		p := publish(t, "tcp", tasks...)
		r.apply(p)
		got := map[string]int{}
		for range 700 {
			name, err := ask(at("127.0.0.1", p))
			if err != nil {
				t.Fatal(err)
			}
			got[name]++
		}
		for _, task := range tasks {
			if got[task.Task] != 100 {
				t.Errorf("%s answered %d of 700 requests, want 100", task.Task, got[task.Task])
			}
		}
		if n := r.dials.Load(); n > 60 { // each loop has some of its own, and the client may be ahead of one's way back
			t.Errorf("300 requests to one peer made %d links, want them used again", n)
		}
	})
}

func TestListensOnAllAddresses(t *testing.T) {
	r := newRig(t)
	p := publish(t, "tcp", r.task("web.1", "a", nil))
	u := publish(t, "udp", r.packets("udp.1", "a"))
	r.apply(p, u)
	for _, host := range []string{"127.0.0.1", "127.0.0.9", "::1"} {
		if got, err := ask(at(host, p)); got != "web.1" {
			t.Errorf("tcp at %s: %q, %v", host, got, err)
		}
		if got, err := sendPacket(t, at(host, u), "x"); got != "udp.1:x" {
			t.Errorf("udp at %s: %q, %v", host, got, err)
		}
	}
}

func TestTaskThatDoesNotAnswerIsSkipped(t *testing.T) {
	for _, place := range places() {
		t.Run("on "+place.name, func(t *testing.T) {
			r := rigOf(t, place.links)
			p := publish(t, "tcp", r.task("web.1", "a", nil), r.dead("web.2", place.node), r.task("web.3", "b", nil))
			r.apply(p)
			for range 30 {
				if got, err := ask(at("127.0.0.1", p)); err != nil || !strings.HasPrefix(got, "web.") {
					t.Fatalf("answered %q, %v", got, err)
				}
			}
		})
	}
	t.Run("machine", func(t *testing.T) {
		kinds(t, func(t *testing.T, r *rig) {
			p := publish(t, "tcp", r.task("web.1", "a", nil), r.task("web.2", "b", nil))
			r.apply(p)
			r.door.Close()
			for range 10 {
				if got, err := ask(at("127.0.0.1", p)); got != "web.1" {
					t.Fatalf("answered %q, %v", got, err)
				}
			}
		})
	})
	// As by SIGSTOP: the kernel takes connections for it, and nobody speaks. One client finds out for all.
	t.Run("machine whose meshproxy is stopped", func(t *testing.T) {
		kinds(t, func(t *testing.T, r *rig) {
			stopped, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer stopped.Close()
			r.peers = map[string][]string{"b": {stopped.Addr().String()}}
			p := publish(t, "tcp", r.task("web.1", "b", nil), r.task("web.2", "a", nil))
			r.apply(p)
			var waited time.Time
			for i := range 4 { // two of them have it first in turn
				if got, err := ask(at("127.0.0.1", p)); got != "web.2" {
					t.Fatalf("answered %q, %v", got, err)
				}
				if i == 0 {
					waited = time.Now()
				}
			}
			if n := r.dials.Load(); n > 1 && time.Since(waited) < 2*time.Second { // after that it may be tried again
				t.Errorf("%d of 4 connections waited for it", n)
			}
		})
	})
	t.Run("all", func(t *testing.T) {
		r := newRig(t)
		p := publish(t, "tcp", r.dead("web.1", "a"))
		r.apply(p)
		if got, err := ask(at("127.0.0.1", p)); err == nil {
			t.Errorf("an empty answer %q instead of a reset", got)
		}
	})
}

// TestHalfClose: the task answers only when it has read to the end, and the client reads the answer after it has closed
// its side. Large and both ways, so that chunks and buffers are crossed.
func TestHalfClose(t *testing.T) {
	data := make([]byte, 3<<20+17)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data)
	for _, place := range places() {
		t.Run("on "+place.name, func(t *testing.T) {
			r := rigOf(t, place.links)
			p := publish(t, "tcp", r.task("web.1", place.node, func(c net.Conn) {
				defer c.Close()
				got, _ := io.ReadAll(c)
				c.Write(got)
			}))
			r.apply(p)
			warm := place.node == "a"
			for i := 0; i < 3 || !warm && i < 100; i++ { // the client may be ahead of the link's way back to the warm ones
				before := r.dials.Load()
				if got, err := echo(at("127.0.0.1", p), data); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes came back of %d, %v", len(got), len(data), err)
				}
				warm = warm || r.dials.Load() == before
			}
			if !warm {
				t.Error("no stream went over a warm link")
			}
		})
	}
}

// echo sends data, closes its side and reads to the end.
func echo(address string, data []byte) ([]byte, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(data); err != nil {
		return nil, err
	}
	c.(*net.TCPConn).CloseWrite()
	return io.ReadAll(c)
}

// TestBrokenStreamIsNotAnEnd: when the task's machine is cut off in the middle, the client must not take what it has for
// the whole.
func TestBrokenStreamIsNotAnEnd(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		p := publish(t, "tcp", r.task("web.1", "b", func(c net.Conn) {
			io.WriteString(c, "the first half")
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, link := range r.conns {
				link.Close()
			}
			c.Close()
		}))
		r.apply(p)
		if got, err := ask(at("127.0.0.1", p)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q came, %v, want a reset", got, err)
		}
	})
}

func TestWarmLinkThatThePeerHasClosed(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		p := publish(t, "tcp", r.task("web.1", "b", nil))
		r.apply(p)
		for range 5 {
			if got, err := ask(at("127.0.0.1", p)); got != "web.1" {
				t.Fatalf("answered %q, %v", got, err)
			}
			r.mu.Lock()
			for _, link := range r.conns { // as if its meshproxy had been restarted
				link.Close()
			}
			r.mu.Unlock()
		}
	})
}

func TestUDP(t *testing.T) {
	for _, place := range places() {
		t.Run("on "+place.name, func(t *testing.T) {
			r := rigOf(t, place.links)
			one, two := r.packets("udp.1", place.node), r.packets("udp.2", place.node)
			p := publish(t, "udp", one, two)
			r.apply(p)
			c, err := net.Dial("udp", at("127.0.0.1", p))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			first := exchange(t, c, "x")
			if again := exchange(t, c, strings.Repeat("y", 40000)); again[:6] != first[:6] {
				t.Errorf("a client's second datagram went to %q, the first to %q", again[:6], first[:6])
			}
			if other, err := sendPacket(t, at("127.0.0.1", p), "x"); err != nil || other == first {
				t.Errorf("another client went to %q, %v, as the first", other, err)
			}
			// The task leaves: the client's next datagram goes to the other.
			r.a.Withdraw(first[:5])
			if now := exchange(t, c, "x"); now == first {
				t.Errorf("a withdrawn task still answers %q", now)
			}
		})
	}
}

func TestPeerReachesOnlyTheTasksOfTheTables(t *testing.T) {
	kinds(t, func(t *testing.T, r *rig) {
		own, other := r.task("web.1", "b", nil), r.task("secret", "b", nil)
		r.apply(publish(t, "tcp", own))
		for _, c := range []struct {
			name   string
			header *meshv1.ForwardHeader
			ok     bool
		}{
			{"the task", &meshv1.ForwardHeader{TaskId: "web.1", Address: own.Address.String(), Network: "tcp"}, true},
			{"another port", &meshv1.ForwardHeader{TaskId: "web.1", Address: other.Address.String(), Network: "tcp"}, false},
			{"another task's name", &meshv1.ForwardHeader{TaskId: "web.2", Address: own.Address.String(), Network: "tcp"}, false},
			{"another network", &meshv1.ForwardHeader{TaskId: "web.1", Address: own.Address.String(), Network: "udp"}, false},
			{"a name", &meshv1.ForwardHeader{TaskId: "web.1", Address: "localhost:22", Network: "tcp"}, false},
			{"nothing", &meshv1.ForwardHeader{}, false},
		} {
			t.Run(c.name, func(t *testing.T) {
				if reply := header(t, r, c.header); (reply.GetError() == "") != c.ok {
					t.Errorf("replied %q", reply.GetError())
				}
			})
		}
		r.b.Withdraw("web.1")
		if reply := header(t, r, &meshv1.ForwardHeader{TaskId: "web.1", Address: own.Address.String(), Network: "tcp"}); reply.GetError() == "" {
			t.Error("a withdrawn task was reached")
		}
	})
}

func TestWithdrawnTaskGetsNothingMore(t *testing.T) {
	r := newRig(t)
	p := publish(t, "tcp", r.task("web.1", "a", nil), r.task("web.2", "a", nil))
	r.apply(p)
	r.a.Withdraw("web.1")
	never := func(when string) {
		t.Helper()
		for range 10 {
			if got, err := ask(at("127.0.0.1", p)); got != "web.2" {
				t.Fatalf("%s: answered %q, %v", when, got, err)
			}
		}
	}
	never("at once")
	r.apply(p)
	never("while the stream still has it")
	without := p
	without.Backends = p.Backends[1:]
	r.apply(without)
	r.apply(p) // the stream has dropped it and brought it back: it is well again
	got := map[string]bool{}
	for range 4 {
		name, _ := ask(at("127.0.0.1", p))
		got[name] = true
	}
	if !got["web.1"] {
		t.Error("a task that has come back gets nothing")
	}
}

func TestListenersFollowTheTables(t *testing.T) {
	r := newRig(t)
	hold, made := make(chan struct{}), make(chan struct{})
	p := publish(t, "tcp", r.task("web.1", "a", func(c net.Conn) {
		defer c.Close()
		close(made)
		<-hold
		io.WriteString(c, "still here")
	}))
	if _, err := net.Dial("tcp", at("127.0.0.1", p)); err == nil {
		t.Fatal("the port answers before it is published")
	}
	r.apply(p)
	c, err := net.Dial("tcp", at("127.0.0.1", p))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-made
	r.apply()
	if _, err := net.Dial("tcp", at("127.0.0.1", p)); err == nil {
		t.Error("the port answers after it has gone")
	}
	close(hold)
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if got, err := io.ReadAll(c); string(got) != "still here" {
		t.Errorf("the established connection got %q, %v", got, err)
	}
}

func TestTakenPortConcernsNoOther(t *testing.T) {
	r := newRig(t)
	taken, free := publish(t, "tcp", r.task("web.1", "a", nil)), publish(t, "tcp", r.task("web.2", "a", nil))
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", taken.Port))
	if err != nil {
		t.Fatal(err)
	}
	unbound := r.apply(taken, free)
	if len(unbound) != 1 || unbound[0].Listener != taken.Listener {
		t.Errorf("unbound: %v, want %s", unbound, taken.Listener)
	}
	if got, err := ask(at("127.0.0.1", free)); got != "web.2" {
		t.Errorf("the other port answered %q, %v", got, err)
	}
	l.Close()
	if unbound := r.apply(taken, free); len(unbound) != 0 {
		t.Errorf("still unbound: %v", unbound)
	}
	if got, err := ask(at("127.0.0.1", taken)); got != "web.1" {
		t.Errorf("the freed port answered %q, %v", got, err)
	}
}

// header says one to b and reads the reply.
func header(t *testing.T, r *rig, h *meshv1.ForwardHeader) *meshv1.ForwardReply {
	t.Helper()
	c := r.called(t)
	defer c.Close()
	if _, err := c.Write(framed(t, h)); err != nil {
		t.Fatal(err)
	}
	reply := &meshv1.ForwardReply{}
	if err := proto.Unmarshal(heard(t, c, 4), reply); err != nil {
		t.Fatal(err)
	}
	return reply
}

func sendPacket(t *testing.T, address, text string) (string, error) {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	io.WriteString(c, text)
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func exchange(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 70000)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}
