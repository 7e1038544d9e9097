// Package chart draws lines and points as SVG, for the figures that tests and benchmarks leave behind.
//
// It owns the look of a chart: axes, ticks, a legend. It knows nothing of what is drawn, and is far smaller than the plotting
// libraries, which draw what we don't need. It keeps no state; a Chart is drawn by whoever filled it.
package chart

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"strconv"
)

// Chart is what is drawn.
type Chart struct {
	Title, X, Y string  // the words for the whole and for the axes
	LogX, LogY  bool    // powers of ten; what is not above zero is left out
	StepX       float64 // between two ticks; 0: about six ticks
	Lines       []Line
}

// Line is one series. Its points are joined in their order.
type Line struct {
	Name   string
	Points []Point
}

// Point is one value.
type Point struct{ X, Y float64 }

const (
	width, height            = 760, 420
	left, right, top, bottom = 80, 35, 60, 50
)

// marked is up to how many points of a line are marked: with more of them the line says enough.
const marked = 30

// axis turns values into pixels.
type axis struct {
	low, high float64
	log       bool
	every     float64 // between two ticks, if it is given
	from, to  float64 // pixels
}

// SVG is the drawing.
func (c *Chart) SVG() []byte {
	x, y := c.axes()
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	text(&b, width/2, 20, "middle", c.Title)
	text(&b, width/2, height-8, "middle", c.X)
	fmt.Fprintf(&b, `<g transform="translate(16 %d) rotate(-90)">`, height/2)
	text(&b, 0, 0, "middle", c.Y)
	b.WriteString("</g>\n")
	for _, v := range x.between() {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#f3f3f3"/>`+"\n", x.at(v), x.at(v), top, height-bottom)
	}
	for _, v := range y.between() {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#f3f3f3"/>`+"\n", left, width-right, y.at(v), y.at(v))
	}
	for _, v := range x.ticks() {
		p := x.at(v)
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#ddd"/>`+"\n", p, p, top, height-bottom)
		text(&b, p, height-bottom+16, "middle", number(v))
	}
	for _, v := range y.ticks() {
		p := y.at(v)
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", left, width-right, p, p)
		text(&b, left-6, p+4, "end", number(v))
	}
	for i, l := range c.Lines {
		c.line(&b, l, x, y, colour(i))
		if len(c.Lines) == 1 { // the title says what it is
			break
		}
		text(&b, float64(left+14+i*150), top-12, "start", l.Name)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/>`+"\n", left+i*150, top-21, colour(i))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (c *Chart) line(b *bytes.Buffer, l Line, x, y axis, colour string) {
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, colour)
	for _, p := range l.Points {
		if x.has(p.X) && y.has(p.Y) {
			fmt.Fprintf(b, "%.1f,%.1f ", x.at(p.X), y.at(p.Y))
		}
	}
	b.WriteString("\"/>\n")
	if len(l.Points) > marked {
		return
	}
	for _, p := range l.Points {
		if x.has(p.X) && y.has(p.Y) {
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x.at(p.X), y.at(p.Y), colour)
		}
	}
}

func (c *Chart) axes() (x, y axis) {
	x = axis{low: math.Inf(1), high: math.Inf(-1), log: c.LogX, every: c.StepX, from: left, to: width - right}
	y = axis{low: math.Inf(1), high: math.Inf(-1), log: c.LogY, from: height - bottom, to: top}
	for _, l := range c.Lines {
		for _, p := range l.Points {
			x.include(p.X)
			y.include(p.Y)
		}
	}
	if !y.log {
		y.include(0)
	}
	x.round()
	y.round()
	return x, y
}

func (a *axis) has(v float64) bool { return !a.log || v > 0 }

func (a *axis) include(v float64) {
	if a.has(v) {
		a.low, a.high = min(a.low, v), max(a.high, v)
	}
}

// round widens the axis to whole ticks; one without values, or with one alone, gets some width.
func (a *axis) round() {
	if a.low > a.high {
		a.low, a.high = 1, 10
	}
	if a.log {
		a.low, a.high = math.Pow(10, math.Floor(math.Log10(a.low))), math.Pow(10, math.Ceil(math.Log10(a.high)))
		if a.low == a.high {
			a.high *= 10
		}
		return
	}
	if a.low == a.high {
		a.high++
	}
	step := a.step()
	const hair = 0.01 // of a step: what a last value is over a tick needs no further one
	a.low, a.high = math.Floor(a.low/step+hair)*step, math.Ceil(a.high/step-hair)*step
}

// step is 1, 2 or 5 times a power of ten, so that there are about six ticks.
func (a *axis) step() float64 {
	if a.every > 0 {
		return a.every
	}
	raw := (a.high - a.low) / 6
	unit := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, f := range []float64{1, 2, 5} {
		if f*unit >= raw {
			return f * unit
		}
	}
	return 10 * unit
}

func (a *axis) ticks() (out []float64) {
	if a.log {
		for v := a.low; v <= a.high*1.01; v *= 10 {
			out = append(out, v)
		}
		return out
	}
	step := a.step()
	for i := 0.0; a.low+i*step <= a.high+step/2; i++ {
		out = append(out, a.low+i*step)
	}
	return out
}

// between are the values between the ticks of a logarithmic axis, so that its scale is seen.
func (a *axis) between() (out []float64) {
	if !a.log {
		return nil
	}
	for _, v := range a.ticks() {
		for i := 2.0; i < 10 && v*i < a.high; i++ {
			out = append(out, v*i)
		}
	}
	return out
}

func (a *axis) at(v float64) float64 {
	share := (v - a.low) / (a.high - a.low)
	if a.log {
		share = math.Log(v/a.low) / math.Log(a.high/a.low)
	}
	return a.from + share*(a.to-a.from)
}

// number is written as in a text: 0.02, 1,000, 25,000, 1.5 M.
func number(v float64) string {
	v = math.Round(v*1e6) / 1e6
	switch abs := math.Abs(v); {
	case abs >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 4, 64) + " M"
	case abs >= 1e3:
		whole := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
		return whole[:len(whole)-3] + "," + whole[len(whole)-3:]
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

func text(b *bytes.Buffer, x, y float64, anchor, words string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(words))
}

// colour tells lines apart, also for those who see few colours.
func colour(i int) string {
	all := [...]string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000"}
	return all[i%len(all)]
}
