package session

import (
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/liveness"
)

// Heartbeats that come within 20 ms are answered together, and none later than that.
func TestHeartbeatsAreAnsweredTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a answers
		began, rung := time.Now(), make(chan time.Duration, 3)
		for range 3 {
			l := &line{box: newOutbox()}
			l.box.bell = func() { rung <- time.Since(began) }
			a.add(l)
			time.Sleep(9 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if len(rung) != 3 {
			t.Fatalf("%d of 3 were answered", len(rung))
		}
		for range 3 {
			if got := <-rung; got != answerEach {
				t.Errorf("answered %s after the first came, want %s", got, answerEach)
			}
		}
	})
}

// hasty is a machine that says all its heartbeats at once.
type hasty struct {
	grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]
	beats []uint64
}

func (h *hasty) Recv() (*dispatcherv1.SessionRequest, error) {
	if len(h.beats) == 0 {
		return nil, io.EOF
	}
	seq := h.beats[0]
	h.beats = h.beats[1:]
	return &dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Heartbeat{Heartbeat: &dispatcherv1.Heartbeat{Seq: seq}}}, nil
}

// A machine that beats without end takes no more memory than any other: it waits for one answer, to its last heartbeat.
func TestManyHeartbeatsOfOneWaitForOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Parts: Parts{Table: liveness.NewTable()}}
		beats := append(slices.Repeat([]uint64{0, 1, 0, 2}, 1000), 3)
		l, rung := &line{box: newOutbox(), stream: &hasty{beats: beats}}, 0
		l.box.bell = func() { rung++ }
		if err := s.receive(t.Context(), l); !errors.Is(err, errClosed) {
			t.Fatal(err)
		}
		s.answers.mu.Lock()
		n := len(s.answers.due)
		s.answers.mu.Unlock()
		if n != 1 {
			t.Errorf("%d answers are due, want one", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if seq, _ := l.box.takeAcks(); rung != 1 || seq != 3 {
			t.Errorf("answers heartbeat %d after being rung %d times, want the third once", seq, rung)
		}
		if !l.box.beat(4) {
			t.Error("the next one is not noted")
		}
	})
}
