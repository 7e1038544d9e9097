package meter_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/agent/internal/meter"
	"github.com/shoalproject/shoal/services/agent/internal/usage"
)

type fake struct {
	ids     []string
	figures map[string]usage.Figures
}

func (f *fake) Containers() []string { return f.ids }

func (f *fake) Read(id string) (usage.Figures, error) {
	if x, ok := f.figures[id]; ok {
		return x, nil
	}
	return usage.Figures{}, errors.New("gone")
}

// A rate needs two readings of one container, and a span that the clock can be believed for.
func TestRates(t *testing.T) {
	now := time.Unix(1000, 0)
	f := &fake{ids: []string{"t1.1", "other"}, figures: map[string]usage.Figures{"t1.1": {CPU: 5 * time.Second, Memory: 10}, "other": {}}}
	m := meter.New(&run.Rand{}, func() time.Time { return now }, f)
	check := func(what string, want ...*dispatcherv1.TaskUsage) {
		t.Helper()
		if diff := cmp.Diff(&dispatcherv1.UsageReport{Tasks: want}, m.Measure(), protocmp.Transform()); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}
	check("first")
	now = now.Add(10 * time.Second)
	f.figures["t1.1"] = usage.Figures{CPU: 20 * time.Second, Memory: 20}
	f.figures["t2.1"] = usage.Figures{CPU: time.Hour}
	f.ids = append(f.ids, "t2.1", "gone.1")
	check("second", &dispatcherv1.TaskUsage{TaskId: "t1", NanoCpus: 1_500_000_000, MemoryBytes: 20})
	now = now.Add(-time.Hour)
	check("the clock was set back")
	now = now.Add(10 * time.Second)
	f.ids, f.figures["t1.2"] = []string{"t1.2", "t2.1"}, usage.Figures{}
	check("an attempt begins anew", &dispatcherv1.TaskUsage{TaskId: "t2"})
	now = now.Add(time.Hour)
	check("the machine was asleep")
}
