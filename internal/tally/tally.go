// Package tally makes rates of a meshproxy's counts of connections, for the report of what a machine's services get.
//
// It owns what two successive counts say together. It must never guess: where they do not belong together there is no rate.
// A Tally belongs to one goroutine.
package tally

import (
	"time"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
)

// A span outside these bounds is none that was measured: the clock was set, or the machine was asleep.
const (
	Shortest = time.Second
	Longest  = time.Minute
)

// Tally remembers the last counts.
type Tally struct {
	at   time.Time
	last *meshv1.ConnectionsResponse
}

// Next fills a report in: the connections a second since the counts before. Now is the wall clock; no counts (nil): nobody could
// be asked.
func (t *Tally) Next(now time.Time, counts *meshv1.ConnectionsResponse, out *dispatcherv1.UsageReport) {
	last, span := t.last, now.Sub(t.at)
	t.at, t.last = now, counts
	if last == nil || counts == nil || last.GetProcess() != counts.GetProcess() || span < Shortest || span > Longest {
		return
	}
	before := map[string]uint64{}
	for _, s := range last.GetServices() {
		before[s.GetServiceId()] = s.GetConnections()
	}
	out.Counted = true
	for _, s := range counts.GetServices() {
		if was := before[s.GetServiceId()]; s.GetConnections() > was {
			out.Services = append(out.Services, &dispatcherv1.ServiceUsage{
				ServiceId: s.GetServiceId(), MilliConnections: int64(float64(s.GetConnections()-was) / span.Seconds() * 1000),
			})
		}
	}
}
