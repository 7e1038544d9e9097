package chart_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/testx/chart"
)

// TestSVG: any chart is well-formed, shows its words escaped.
func TestSVG(t *testing.T) {
	for name, c := range map[string]chart.Chart{
		"empty":   {Title: "nothing"},
		"one":     {Lines: []chart.Line{{Name: "a<b", Points: []chart.Point{{1, 1}}}}},
		"lines":   {X: "x", Y: "y", Lines: []chart.Line{{Points: []chart.Point{{0, 0}, {24, 5e6}}}, {Points: []chart.Point{{3, 17}}}}},
		"log":     {LogX: true, LogY: true, Lines: []chart.Line{{Points: []chart.Point{{0, 1}, {10, 0.02}, {1e5, 31}}}}},
		"log one": {LogY: true, Lines: []chart.Line{{Points: []chart.Point{{1, 10}}}}},
	} {
		svg := string(c.SVG())
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, svg)
			}
		}
		for _, bad := range []string{"NaN", "Inf", "a<b"} {
			if strings.Contains(svg, bad) {
				t.Errorf("%s: %s in\n%s", name, bad, svg)
			}
		}
	}
}
