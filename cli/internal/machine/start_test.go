package machine_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Units wait for each other: when one can't start, a person is told at once, with that one's reason alone, and not when all
// the others have given up.
func TestAUnitThatFailsEndsTheOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.fail, h.hang, h.journal = "systemctl start shoal-store", "systemctl start ", "no space left on device"
		before, begun := h.files(t), time.Now()
		_, err := h.initialize(t.Context(), &gateway{})
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("init failed after %s", took)
		}
		if err == nil || err.Error() != "start shoal-store: it did not work\nno space left on device" {
			t.Errorf("got %v", err)
		}
		if diff := cmp.Diff(before, h.files(t)); diff != "" || len(h.enabled)+len(h.active) > 0 {
			t.Errorf("left: enabled %v, active %v%s", h.enabled, h.active, diff)
		}
		// Where none fails, each says at the end that it was not ready.
		h.fail, begun = "", time.Now()
		_, err = h.initialize(t.Context(), &gateway{})
		if err == nil || strings.Count(err.Error(), "not ready within 2m0s") != 7 || time.Since(begun) > 3*time.Minute {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
	})
}
