package main

import (
	"slices"
	"time"
)

// series is one quantity, measured several times.
type series struct {
	Samples []float64 `json:"samples"`
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
}

// add takes one measurement. A nil series is made.
func (s *series) add(v float64) *series {
	if s == nil {
		s = &series{}
	}
	s.Samples = append(s.Samples, v)
	sorted := slices.Sorted(slices.Values(s.Samples))
	n := len(sorted)
	s.Min, s.Max = sorted[0], sorted[n-1]
	s.Median = (sorted[(n-1)/2] + sorted[n/2]) / 2
	return s
}

// percentile is the value below which a share p of the durations lies, in milliseconds; 0 if there are none.
func percentile(durations []time.Duration, p float64) float64 {
	if len(durations) == 0 {
		return 0
	}
	slices.Sort(durations)
	return ms(durations[int(p*float64(len(durations)-1))])
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
