package dns

import (
	"testing"
	"testing/synctest"
	"time"
)

// A container may ask so much at once and so much over time, wait for so many answers from outside, hold so many
// connections; what one uses up is not missing to another.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits()
		many := func(f func(string) bool, task string, tries int) (granted int) {
			for range tries {
				if f(task) {
					granted++
				}
			}
			return granted
		}
		if got := many(l.take, "a", 2*burst); got != burst {
			t.Errorf("%d questions at once, want %d", got, burst)
		}
		time.Sleep(time.Second)
		if got := many(l.take, "a", 2*burst); got != perSecond {
			t.Errorf("%d questions a second later, want %d", got, perSecond)
		}
		if got := many(l.begin, "a", 2*mostForwarded); got != mostForwarded {
			t.Errorf("%d questions outside, want %d", got, mostForwarded)
		}
		if got := many(l.open, "a", 2*mostStreams); got != mostStreams {
			t.Errorf("%d connections, want %d", got, mostStreams)
		}
		if !l.take("b") || !l.begin("b") || !l.open("b") {
			t.Error("its neighbour is refused")
		}
		l.end("a")
		l.close("a")
		if !l.begin("a") || !l.open("a") {
			t.Error("what was given back is not granted again")
		}
	})
}

// What is remembered of containers is bounded, and who holds something is not forgotten.
func TestLimitsForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits()
		for i := range mostClients {
			l.take(time.Duration(i).String())
		}
		l.open("0s")
		time.Sleep(2 * forgetInactive)
		l.take("one more")
		if len(l.clients) != 2 {
			t.Errorf("%d are remembered, want the one with a connection and the new one", len(l.clients))
		}
	})
}
