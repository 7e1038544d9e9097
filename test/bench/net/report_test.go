package main

import (
	"strings"
	"testing"
)

// TestFaultIsNotHidden: a step that a fault has ended is told as one, and the steps before it with their figures.
func TestFaultIsNotHidden(t *testing.T) {
	r := newReport()
	done := r.table("done", "0.9")
	done.add("direct", 100, 0)
	done.add("mesh", 50, 2)
	r.table("failed at once", "0.9")
	half := r.table("failed in its second round", "0.9")
	half.add("direct", 100, 0)
	half.add("mesh", 50, 2)
	half.add("direct", 100, 0)
	var out strings.Builder
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "a fault ended it") != 2 || !strings.Contains(got, "| mesh | 50 (50–50) | 0.50 (0.50–0.50) | 2.0 |") {
		t.Error(got)
	}
}
