package relay_test

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/shoalproject/shoal/services/meshproxy/internal/hop"
)

// TestLastWordsAreSentBeforeALinkIsClosed: a stream whose link is to carry no other has its last words sent, though there was no room for
// them when they came.
func TestLastWordsAreSentBeforeALinkIsClosed(t *testing.T) {
	r := newRig(t)
	r.far = newFar(r)
	r.far.mu.Lock()
	r.far.once = true
	r.far.mu.Unlock()
	for range 200 {
		a, b, p := r.joined(false)
		if err := errors.Join(b.SetReadBuffer(roomOfOnce), b.CloseWrite()); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(a); err != nil {
			t.Fatal(err)
		}
		said := make([]byte, 40*hop.MostSaid+16_000)
		var wrote sync.WaitGroup
		wrote.Go(func() {
			if _, err := a.Write(said); err != nil {
				t.Error(err)
			}
			a.CloseWrite()
		})
		heard, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{b}, make([]byte, 1000)) // slower than it comes
		wrote.Wait()
		if err != nil || heard != int64(len(said)) {
			t.Fatalf("heard %d bytes of %d, %v", heard, len(said), err)
		}
		<-p.done
	}
}

// TestNextStreamHarmsNoTail: words that a task is slow to take stay its own, though the next client of the same link gives up.
func TestNextStreamHarmsNoTail(t *testing.T) {
	one := runtime.GOMAXPROCS(1) // so that one loop has all
	t.Cleanup(func() { runtime.GOMAXPROCS(one) })
	r := newRig(t)
	r.far = newFar(r)
	a, b, p := r.joined(true)
	if err := b.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 200<<10)
	if _, err := a.Write(said); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	until(t, "the link is warm", func() bool { return r.r.Warm() == 1 })
	next, err := net.Dial("tcp", r.far.doors[true].String())
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	c := <-r.far.pairs
	c.pair.Reset()
	<-c.ended
	if heard, err := io.Copy(io.Discard, b); err != nil || heard != int64(len(said)) {
		t.Errorf("heard %d bytes of %d, %v", heard, len(said), err)
	}
	<-p.done
	r.far.mu.Lock()
	defer r.far.mu.Unlock()
	if r.far.dials != 1 {
		t.Errorf("the next client had a link of his own")
	}
}
