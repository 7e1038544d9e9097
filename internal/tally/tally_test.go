package tally_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/shoalproject/shoal/internal/tally"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
)

// A rate needs two counts of one process and a span that the clock can be believed for; else nothing is said to be counted.
func TestRates(t *testing.T) {
	now := time.Unix(1000, 0)
	var x tally.Tally
	counts := func(process uint64, web uint64) *meshv1.ConnectionsResponse {
		return &meshv1.ConnectionsResponse{Process: process, Services: []*meshv1.ServiceConnections{{ServiceId: "idle", Connections: 9}, {ServiceId: "web", Connections: web}}}
	}
	none := &dispatcherv1.UsageReport{}
	web := func(milli int64) *dispatcherv1.UsageReport {
		return &dispatcherv1.UsageReport{Counted: true, Services: []*dispatcherv1.ServiceUsage{{ServiceId: "web", MilliConnections: milli}}}
	}
	for _, step := range []struct {
		what   string
		after  time.Duration
		counts *meshv1.ConnectionsResponse
		want   *dispatcherv1.UsageReport
	}{
		{"first", 0, counts(1, 100), none},
		{"second", 10 * time.Second, counts(1, 350), web(25_000)},
		{"at rest", 10 * time.Second, counts(1, 350), &dispatcherv1.UsageReport{Counted: true}},
		{"a new process", 10 * time.Second, counts(2, 400), none},
		{"its second", 8 * time.Second, counts(2, 404), web(500)},
		{"nobody answers", 8 * time.Second, nil, none},
		{"answers again", 8 * time.Second, counts(2, 900), none},
		{"the clock was set back", -time.Hour, counts(2, 901), none},
		{"the machine was asleep", time.Hour, counts(2, 901), none},
		{"and on", 10 * time.Second, counts(2, 911), web(1000)},
	} {
		now = now.Add(step.after)
		out := &dispatcherv1.UsageReport{}
		x.Next(now, step.counts, out)
		if diff := cmp.Diff(step.want, out, protocmp.Transform()); diff != "" {
			t.Errorf("%s:\n%s", step.what, diff)
		}
	}
}
