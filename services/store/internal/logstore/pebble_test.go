package logstore_test

import (
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/shoalproject/shoal/services/store/internal/logstore"
	"github.com/shoalproject/shoal/services/store/internal/logstore/conformance"
)

func TestPebbleConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) logstore.Storage {
		return logstore.Disk{Dir: filepath.Join(t.TempDir(), "raft"), Log: slog.New(slog.DiscardHandler)}
	})
}

// TestCrashKeepsWhatWasSynced: nothing that Save returned for with a sync is lost, whatever a crash leaves of the rest.
func TestCrashKeepsWhatWasSynced(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		l := conformance.Open(t, logstore.Disk{Dir: "raft", FS: fs, Log: slog.New(slog.DiscardHandler)})
		last, checkpoint := uint64(0), uint64(0)
		crashAt := 20 + rng.IntN(80)
		var crashed *vfs.MemFS
		for range crashAt {
			n := 1 + rng.Uint64N(5)
			b := logstore.Batch{HardState: conformance.Hard(1, last), Entries: conformance.Entries(1, last+1, last+n), Sync: true}
			if last == 0 {
				b.ID = 7
			}
			if err := l.Save(b); err != nil {
				t.Fatal(err)
			}
			last += n
			if rng.IntN(10) == 0 {
				s := logstore.Snapshot{Meta: conformance.Meta(last, 1), Parts: conformance.Parts("a", "b")}
				if err := l.Checkpoint(s, last-1); err != nil {
					t.Fatal(err)
				}
				checkpoint = last
			}
		}
		// Unsynced writes at the moment of the crash may be there or not.
		if err := l.Save(logstore.Batch{Entries: conformance.Entries(1, last+1, last+3)}); err != nil {
			t.Fatal(err)
		}
		crashed = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(rng.Uint64N(101)), RNG: rng})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		again := conformance.Open(t, logstore.Disk{Dir: "raft", FS: crashed, Log: slog.New(slog.DiscardHandler)})
		c, err := again.Load()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		have := c.Snapshot.GetIndex()
		if n := len(c.Entries); n > 0 {
			have = c.Entries[n-1].GetIndex()
		}
		if have < last || c.Snapshot.GetIndex() != checkpoint || c.ID != 7 {
			t.Fatalf("seed %d: synced up to %d with checkpoint %d, after the crash %d and %d", seed, last, checkpoint, have, c.Snapshot.GetIndex())
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamageIsNamed: a record that is not as it was written is never read as if it were.
func TestDamageIsNamed(t *testing.T) {
	fs := vfs.NewMem()
	disk := logstore.Disk{Dir: "raft", FS: fs, Log: slog.New(slog.DiscardHandler)}
	l := conformance.Open(t, disk)
	if err := l.Save(logstore.Batch{ID: 7, HardState: conformance.Hard(1, 1), Entries: conformance.Entries(1, 1, 2), Sync: true}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open("raft", &pebble.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	value, closer, err := db.Get([]byte("hard"))
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte{}, value...)
	bad[len(bad)-1] ^= 1
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Set([]byte("hard"), bad, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	l = conformance.Open(t, disk)
	if _, err := l.Load(); err == nil || !strings.Contains(err.Error(), `"hard" is damaged`) {
		t.Fatalf("damaged record: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
