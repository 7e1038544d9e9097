package figures_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/test/bench/figures"
)

// What was taken once is no chart, and what was taken of two has a line each.
func TestDraw(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "charts")
	more := []float64{3, 4}
	for step, sides := range map[string][]figures.Side{
		"50 more, here": {{"shoal", more}, {"bare containerd", more}, {"nobody", nil}},
		"once":          {{"shoal", more[:1]}},
	} {
		if err := figures.Draw(folder, step, "s", sides...); err != nil {
			t.Fatal(err)
		}
	}
	drawn, err := os.ReadDir(folder)
	if err != nil || len(drawn) != 1 || drawn[0].Name() != "50-more-here.svg" {
		t.Fatalf("%v, %v", drawn, err)
	}
	text, err := os.ReadFile(filepath.Join(folder, drawn[0].Name()))
	if err != nil || strings.Count(string(text), "<polyline") != 2 {
		t.Errorf("%s, %v", text, err)
	}
}
