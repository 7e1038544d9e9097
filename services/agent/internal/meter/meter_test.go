package meter_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	"github.com/shoalproject/shoal/services/agent/internal/meter"
	"github.com/shoalproject/shoal/services/agent/internal/usage"
)

type fake struct {
	ids     []string
	figures map[string]usage.Figures
	led     uint64
}

func (f *fake) Containers() []string { return f.ids }

func (f *fake) Read(id string) (usage.Figures, error) {
	if x, ok := f.figures[id]; ok {
		return x, nil
	}
	return usage.Figures{}, errors.New("gone")
}

// Connections tells counts of one process, or that nobody answers.
func (f *fake) Connections(context.Context) (*meshv1.ConnectionsResponse, error) {
	if f.led == 0 {
		return nil, errors.New("nobody listens")
	}
	return &meshv1.ConnectionsResponse{Services: []*meshv1.ServiceConnections{{ServiceId: "web", Connections: f.led}}}, nil
}

// What the mesh has led is in the same report; while it does not answer nothing is said to be counted.
func TestConnections(t *testing.T) {
	now := time.Unix(1000, 0)
	f := &fake{led: 5}
	m := meter.New(&run.Rand{}, func() time.Time { return now }, f, f)
	m.Measure(t.Context())
	for _, step := range []struct {
		led  uint64
		want *dispatcherv1.UsageReport
	}{
		{25, &dispatcherv1.UsageReport{Counted: true, Services: []*dispatcherv1.ServiceUsage{{ServiceId: "web", MilliConnections: 2000}}}},
		{0, &dispatcherv1.UsageReport{}},
	} {
		now, f.led = now.Add(10*time.Second), step.led
		if diff := cmp.Diff(step.want, m.Measure(t.Context()), protocmp.Transform()); diff != "" {
			t.Errorf("led %d:\n%s", step.led, diff)
		}
	}
}

// A rate needs two readings of one container, and a span that the clock can be believed for.
func TestRates(t *testing.T) {
	now := time.Unix(1000, 0)
	f := &fake{ids: []string{"t1.1", "other"}, figures: map[string]usage.Figures{"t1.1": {CPU: 5 * time.Second, Memory: 10}, "other": {}}}
	m := meter.New(&run.Rand{}, func() time.Time { return now }, f, f)
	check := func(what string, want ...*dispatcherv1.TaskUsage) {
		t.Helper()
		if diff := cmp.Diff(&dispatcherv1.UsageReport{Tasks: want}, m.Measure(t.Context()), protocmp.Transform()); diff != "" {
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
