//go:build failpoint

package status_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/failpoint"
)

// A report whose commit is done, and whose acknowledgement has failed, is looked at again and acknowledged once.
func TestAFailureAfterTheCommitIsMadeGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1", 1), task("a", "n1"))
		var inStore, told bool
		var acks *atomic.Int64
		failpoint.Set("dispatcher.status-committed", func() error {
			inStore, told = r.observed("a").GetState() == running, acks.Load() > 0
			return errors.New("cut")
		})
		defer failpoint.Set("dispatcher.status-committed", nil)
		acks = r.add("n1", 1, saw("a", running, 1))
		time.Sleep(3 * time.Second)
		if !inStore || told || acks.Load() != 1 {
			t.Errorf("at the failure: in the store %v, acknowledged %v; afterwards %d acknowledgements, wanted one", inStore, told, acks.Load())
		}
	})
}
