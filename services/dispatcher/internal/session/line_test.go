package session_test

import (
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// Thousands of sessions have nothing to do most of the time. Each has two goroutines of ours then: gRPC's, which waits for the
// end, and the one that hears the machine.
func TestASettledSessionHasNoSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1"))
		m := r.open("n1", "boot")
		m.assignment()
		m.beat(1)
		m.until("answer", func(resp *dispatcherv1.SessionResponse) bool { return resp.GetHeartbeatAck().GetSeq() == 1 })
		synctest.Wait()
		all := make([]byte, 1<<20)
		own := 0
		for one := range strings.SplitSeq(string(all[:runtime.Stack(all, true)]), "\n\n") {
			if strings.Contains(one, "session.(*Server).") && !strings.Contains(one, "session.(*Server).Run(") {
				own++
			}
		}
		if own != 2 {
			t.Errorf("%d goroutines for one session, want 2", own)
		}
	})
}

// Who stops says so to all its machines, so that they go elsewhere at once; one that comes meanwhile is not kept either.
func TestStopEndsAllSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1"), node("n2"))
		m := r.open("n1", "boot")
		m.assignment()
		r.stop()
		late := r.open("n2", "boot")
		for name, m := range map[string]*machine{"an open session": m, "one that has just come": late} {
			select {
			case err := <-m.failed:
				if !errs.Is(err, errs.Unavailable) {
					t.Errorf("%s ended with %v", name, err)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s goes on", name)
			}
		}
	})
}
