package mesh

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
)

// meshproxies are this machine's, one after another.
type meshproxies struct {
	meshv1.LocalServiceClient

	mu    sync.Mutex // guards below
	says  *meshv1.DataplaneResponse
	next  chan struct{} // closed when another one comes, or says something else
	down  bool          // a call that waits fails, and so does the next
	asked int
}

func (m *meshproxies) Dataplane(ctx context.Context, req *meshv1.DataplaneRequest, _ ...grpc.CallOption) (*meshv1.DataplaneResponse, error) {
	first := true
	for {
		m.mu.Lock()
		if first {
			m.asked++
		}
		says, next, down := m.says, m.next, m.down
		m.mu.Unlock()
		switch first = false; {
		case down:
			return nil, errs.New(errs.Unavailable, "the meshproxy has gone")
		case says.GetSerial() != req.GetSeen():
			return says, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// turn has the meshproxy say something else; nil: it goes. It returns how often it was asked meanwhile.
func (m *meshproxies) turn(says *meshv1.DataplaneResponse) (asked int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.next)
	m.next, m.says, m.down = make(chan struct{}), says, says == nil
	asked, m.asked = m.asked, 0
	return asked
}

// TestFollow: the agent hears of each change of what its meshproxy says, once, and of nothing else. One that has replaced another is heard
// whatever number its first answer has, and tells nothing new when it says the same. One that is away is not asked again and again.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		say := func(serial uint64, reason string) *meshv1.DataplaneResponse {
			return &meshv1.DataplaneResponse{Serial: serial, Reason: reason}
		}
		m := &meshproxies{says: say(1, "old kernel"), next: make(chan struct{})}
		p := &Proxy{client: m}
		if got := p.Dataplane(t.Context()).GetReason(); got != "old kernel" {
			t.Fatalf("at first: %q", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		changes, ended := 0, make(chan error, 1)
		go func() { ended <- p.Follow(ctx, func() { changes++ }) }()
		for _, step := range []struct {
			what    string
			says    *meshv1.DataplaneResponse
			changes int
			reason  string
		}{
			{"nothing new", say(1, "old kernel"), 0, "old kernel"},
			{"another answer", say(2, "no module"), 1, "no module"},
			{"it is away", nil, 0, "no module"},
			{"a new one says the same under another number", say(1, "no module"), 0, "no module"},
			{"it is away again", nil, 0, "no module"},
			{"a new one says something else under the same number", say(1, "none"), 1, "none"},
		} {
			changes = 0
			m.turn(step.says)
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if got := p.Dataplane(ctx).GetReason(); changes != step.changes || got != step.reason {
				t.Errorf("%s: %d changes, %q; want %d, %q", step.what, changes, got, step.changes, step.reason)
			}
			if asked := m.turn(step.says); asked > int(10*time.Minute/followRest)+1 {
				t.Errorf("%s: asked %d times", step.what, asked)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended: %v", err)
		}
	})
}
