package session

import (
	"testing"
	"testing/synctest"
	"time"
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
