package storetest_test

import (
	"testing"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/store/internal/logstore"
	"github.com/shoalproject/shoal/services/store/internal/logstore/conformance"
	"github.com/shoalproject/shoal/services/store/storetest"
)

func TestDiskConformance(t *testing.T) {
	conformance.Run(t, func(*testing.T) logstore.Storage { return storetest.NewDisk(run.NewRand(1)) })
}

// TestCrash: what was synced stays, the dead handle writes no more, and unsynced writes stay in part at most.
func TestCrash(t *testing.T) {
	lost := 0
	for seed := range uint64(20) {
		d := storetest.NewDisk(run.NewRand(seed))
		l := conformance.Open(t, d)
		save := func(b logstore.Batch) {
			if err := l.Save(b); err != nil {
				t.Fatal(err)
			}
		}
		save(logstore.Batch{ID: 7, HardState: conformance.Hard(1, 1), Entries: conformance.Entries(1, 1, 3), Sync: true})
		save(logstore.Batch{Entries: conformance.Entries(1, 4, 4)})
		save(logstore.Batch{Entries: conformance.Entries(1, 5, 5)})
		d.Crash()
		if err := l.Save(logstore.Batch{Entries: conformance.Entries(1, 4, 9), Sync: true}); err == nil {
			t.Fatal("a dead handle writes")
		}
		again := conformance.Open(t, d)
		c, err := again.Load()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(c.Entries); n < 3 || n > 5 {
			t.Fatalf("seed %d: %d entries after the crash", seed, n)
		} else if n < 5 {
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("no crash lost anything that was not synced")
	}
}
