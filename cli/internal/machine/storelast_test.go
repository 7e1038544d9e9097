package machine_test

import (
	"slices"
	"strings"
	"testing"
)

// A store gets its vote on its own. Stopped with one it may take the live cluster's quorum with it.
func TestAManagersStoreStartsWhenNothingElseCanFail(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		h.fail = "systemctl start shoal-agent"
		if _, err := h.join(t.Context(), ca.manager); err == nil || !strings.Contains(err.Error(), "start shoal-agent") {
			t.Errorf("got %v", err)
		}
		if slices.Contains(h.calls, "systemctl start shoal-store") || h.units() != "" {
			t.Errorf("the store was started: %v", h.calls)
		}
		h.fail, h.calls = "", nil
		if _, err := h.join(t.Context(), ca.manager); err != nil {
			t.Error(err)
		}
		if last := h.calls[len(h.calls)-1]; last != "systemctl start shoal-store" {
			t.Errorf("the last that it did was %s", last)
		}
	})
}

func TestAStoreThatMayVoteIsNotStopped(t *testing.T) {
	for name, c := range map[string]struct {
		log, learner, stays bool
	}{
		"it has begun a log":  {log: true, stays: true},
		"it never ran":        {},
		"it was not to vote":  {log: true, learner: true},
		"nothing of it there": {learner: true},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, h *host, ca *authority) {
				if c.log {
					if err := h.env.Files.Write("/var/lib/shoal/store/raft/1.log", []byte("x"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				h.fail = "systemctl start shoal-store"
				_, err := h.machine().Join(t.Context(), joinAll(ca, c.learner))
				if err == nil || strings.Contains(err.Error(), "its vote may count") != c.stays {
					t.Errorf("got %v", err)
				}
				if h.enabled["shoal-store"] != c.stays || (h.units() != "") != c.stays {
					t.Errorf("enabled %v, units %s", h.enabled, h.units())
				}
			})
		})
	}
}
