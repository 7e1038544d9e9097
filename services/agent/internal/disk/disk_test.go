package disk

import (
	"context"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestOnlyWhatMatters: the cluster hears of a disk when its room changed by a twentieth, of each removed image, and of nothing else;
// a disk that is not to be seen is left out.
func TestOnlyWhatMatters(t *testing.T) {
	free := int64(1000)
	reg := prometheus.NewRegistry()
	w := New(run.Env{Log: slog.New(slog.DiscardHandler), Rand: run.NewRand(1), Metrics: reg},
		Disk{"data", func(context.Context) (Use, error) { return Use{1000, free}, nil }},
		Disk{"images", func(context.Context) (Use, error) { return Use{}, errs.New(errs.NotFound, "not here") }})
	told := func() int64 {
		select {
		case <-w.Changed():
		default:
			return -1
		}
		d := &typesv1.NodeDescription{}
		w.Describe(d)
		if len(d.GetDisks()) != 1 || d.GetDisks()[0].GetName() != "data" || d.GetDisks()[0].GetBytes() != 1000 {
			t.Errorf("told %v", d)
		}
		return d.GetDisks()[0].GetFreeBytes()
	}
	for _, c := range []struct{ free, told int64 }{{1000, 1000}, {960, -1}, {950, 950}, {980, -1}, {901, -1}, {900, 900}, {20, 20}} {
		free = c.free
		w.Look(t.Context())
		if got := told(); got != c.told {
			t.Errorf("with %d free the cluster hears %d, want %d", c.free, got, c.told)
		}
		if got := int64(testutil.ToFloat64(w.free.WithLabelValues("data"))); got != c.free {
			t.Errorf("the metric is %d, want %d", got, c.free)
		}
	}
	w.Removed(77)
	if told() != 20 || testutil.ToFloat64(w.removed) != 1 || testutil.ToFloat64(w.gained) != 77 {
		t.Error("a removed image is not told")
	}
}
