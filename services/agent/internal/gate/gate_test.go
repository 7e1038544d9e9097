package gate_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/shoalproject/shoal/services/agent/internal/gate"
)

// TestTurns: who comes while others wait waits for one of each of their kinds, however many of it there are; of a kind they go in
// the order in which they came, no more at once than there are places, and one that gives up costs nobody his.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(1)
		first, err := g.Pass(t.Context(), "loop")
		if err != nil {
			t.Fatal(err)
		}
		var (
			mu     sync.Mutex // guards passed
			passed []string
		)
		come := func(ctx context.Context, kind, name string) {
			go func() {
				leave, err := g.Pass(ctx, kind)
				if err != nil {
					return
				}
				mu.Lock()
				passed = append(passed, name)
				mu.Unlock()
				leave()
			}()
			synctest.Wait() // in this order
		}
		tired, giveUp := context.WithCancel(t.Context())
		for _, name := range []string{"l1", "l2", "l3"} {
			come(t.Context(), "loop", name)
		}
		come(tired, "tired", "t")
		come(tired, "loop", "l4")
		come(t.Context(), "other", "o1")
		come(t.Context(), "other", "o2")
		giveUp()
		synctest.Wait()
		if len(passed) > 0 {
			t.Errorf("%v have the only place, which is taken", passed)
		}
		first()
		synctest.Wait()
		if got, want := strings.Join(passed, " "), "l1 o1 l2 o2 l3"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if again, err := g.Pass(t.Context(), "loop"); err != nil {
			t.Error(err)
		} else {
			again()
		}
	})
}
