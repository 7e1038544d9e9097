package main

import (
	"testing"
	"time"
)

func TestSeries(t *testing.T) {
	var s *series
	for _, v := range []float64{9, 1, 4, 2} {
		s = s.add(v)
	}
	if s.Median != 3 || s.Min != 1 || s.Max != 9 || len(s.Samples) != 4 {
		t.Errorf("series of 9 1 4 2: %+v, want median 3, 1 to 9", s)
	}
	if s = s.add(100); s.Median != 4 {
		t.Errorf("median of 9 1 4 2 100: %v, want 4", s.Median)
	}
	if s.Samples[0] != 9 {
		t.Errorf("samples are in the order of the runs, want 9 first: %v", s.Samples)
	}
}

func TestPercentile(t *testing.T) {
	var d []time.Duration
	for i := range 101 {
		d = append(d, time.Duration(100-i)*time.Millisecond)
	}
	if p50, p99 := percentile(d, 0.5), percentile(d, 0.99); p50 != 50 || p99 != 99 {
		t.Errorf("p50 %v and p99 %v of 0 to 100 ms, want 50 and 99", p50, p99)
	}
	if p := percentile(nil, 0.5); p != 0 {
		t.Errorf("percentile of nothing: %v, want 0", p)
	}
}
