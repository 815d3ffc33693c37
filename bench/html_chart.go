package bench

import (
	"bytes"
	htmltemplate "html/template"
	"image/color"
	"math"
	"regexp"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The size of a chart in points. It is narrow for its type so that the type
// can still be read when a phone shrinks it.
const (
	chartWidth  = 400
	chartHeight = 225
	chartType   = 11
)

// maxPoints is how many points a line may have; of a longer series several
// intervals become one point.
const maxPoints = 600

// The colors of Okabe and Ito, which color-blind people can tell apart, in
// tones that show on white and on black. The page's legend has them too.
var (
	blue   = color.NRGBA{0x2b, 0x8c, 0xd6, 0xff}
	orange = color.NRGBA{0xd9, 0x7a, 0x06, 0xff}
	red    = color.NRGBA{0xd9, 0x4f, 0x3d, 0xff}
	green  = color.NRGBA{0x12, 0x9e, 0x76, 0xff}
	grid   = color.NRGBA{0x80, 0x80, 0x80, 0x50}
)

// chartColor is the color of a line.
type chartColor = color.NRGBA

// chart is a plot with its legend.
type chart struct {
	Title string
	Note  string
	Lines []line
	SVG   htmltemplate.HTML

	x, y  axis
	xName string
}

// line is one curve of a chart. Points whose y is not finite are gaps.
type line struct {
	Name  string
	color chartColor
	pts   plotter.XYs
}

// Color is how CSS writes it.
func (l line) Color() htmltemplate.CSS {
	return htmltemplate.CSS("#" + hex2(l.color.R) + hex2(l.color.G) + hex2(l.color.B))
}

func hex2(b uint8) string {
	s := strconv.FormatUint(uint64(b), 16)
	return strings.Repeat("0", 2-len(s)) + s
}

// axis is how values of one kind are laid out.
type axis struct {
	log      bool
	min, max float64
	ticks    []plot.Tick
}

// linear is an axis from 0 to at least top.
func linear(top float64, label func(float64) string) axis {
	if !(top > 0) {
		top = 1
	}
	decade := math.Pow(10, math.Floor(math.Log10(top/5)))
	step := decade
	for _, f := range []float64{2, 5, 10} {
		if top > 5.001*step {
			step = f * decade
		}
	}
	a := axis{}
	for i := 0; ; i++ {
		v := float64(i) * step
		a.ticks = append(a.ticks, plot.Tick{Value: v, Label: label(v)})
		if a.max = v; v >= top*0.9999 {
			return a
		}
	}
}

// logarithmic is an axis around least and most, which are above 0; it begins
// and ends with a 1, 2 or 5.
func logarithmic(least, most float64, label func(float64) string) axis {
	a := axis{log: true}
	var nice []float64
	for k := math.Floor(math.Log10(least)); k <= math.Ceil(math.Log10(most)); k++ {
		for _, f := range []float64{1, 2, 5} {
			nice = append(nice, f*math.Pow(10, k))
		}
	}
	first, last := 0, len(nice)-1
	for first+1 < last && nice[first+1] <= least*1.0001 {
		first++
	}
	for last-1 > first && nice[last-1] >= most*0.9999 {
		last--
	}
	a.min, a.max = nice[first], nice[last]
	// Three labels a decade are too many when there are many decades.
	dense := last-first <= 6
	for i := first; i <= last; i++ {
		t := plot.Tick{Value: nice[i]}
		if dense || i%3 == 0 {
			t.Label = label(nice[i])
		}
		a.ticks = append(a.ticks, t)
	}
	return a
}

// latencyAxis is logarithmic when the times differ much, else linear from 0.
func latencyAxis(lines []line) axis {
	least, most := math.Inf(1), 0.0
	for _, l := range lines {
		for _, p := range l.pts {
			if p.Y > 0 {
				least, most = min(least, p.Y), max(most, p.Y)
			}
		}
	}
	if most > 8*least {
		return logarithmic(least, most, tickTime)
	}
	return linear(most, tickTime)
}

// tickTime writes a time that is given in ms, without zeros at its end.
func tickTime(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.9999:
		return trim(v*1e3) + "us"
	case v < 999.9:
		return trim(v) + "ms"
	default:
		return trim(v/1e3) + "s"
	}
}

// trim writes a number of an axis: short, since such numbers are round.
func trim(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// tickCount writes a number of an axis: 2,500.
func tickCount(v float64) string {
	if v == math.Trunc(v) {
		return signed(v)
	}
	return trim(v)
}

// draw makes the picture of a chart.
func (c *chart) draw() error {
	p := plot.New()
	p.BackgroundColor = nil // the page's own, light or dark
	sans := font.Font{Typeface: "Liberation", Variant: "Sans", Size: chartType}
	for _, a := range []struct {
		*plot.Axis
		axis
	}{{&p.X, c.x}, {&p.Y, c.y}} {
		a.Axis.Min, a.Axis.Max = a.axis.min, a.axis.max
		a.Padding = 0
		a.Tick.Marker = plot.ConstantTicks(a.axis.ticks)
		a.Tick.Label.Font = sans
		a.Tick.Length = 4
		a.Label.TextStyle.Font = sans
		if a.axis.log {
			a.Scale = plot.LogScale{}
		}
	}
	p.X.Label.Text = c.xName
	g := plotter.NewGrid()
	g.Horizontal = draw.LineStyle{Color: grid, Width: 0.5}
	g.Vertical = g.Horizontal
	p.Add(g)
	for _, l := range c.Lines {
		for _, part := range l.parts(c.y.log) {
			drawn, err := plotter.NewLine(part)
			if err != nil {
				return err
			}
			drawn.Color, drawn.Width = l.color, 1.5
			p.Add(drawn)
		}
	}
	canvas := vgsvg.New(chartWidth, chartHeight)
	// Some room at the right and above for the halves of the last labels.
	p.Draw(draw.Crop(draw.New(canvas), 0, -12, 0, -6))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	c.SVG = inline(b.String(), c.Title)
	return nil
}

// parts are the pieces of a line between its gaps. A piece of one point
// becomes a short dash, so that it shows.
func (l line) parts(log bool) (parts []plotter.XYs) {
	var part plotter.XYs
	end := func() {
		if len(part) == 1 {
			part = append(part, plotter.XY{X: part[0].X * 1.01, Y: part[0].Y})
		}
		if len(part) > 0 {
			parts = append(parts, part)
		}
		part = nil
	}
	for _, p := range l.pts {
		if math.IsNaN(p.Y) || math.IsInf(p.Y, 0) || log && p.Y <= 0 {
			end()
			continue
		}
		part = append(part, p)
	}
	end()
	return parts
}

var (
	prolog = regexp.MustCompile(`(?s)^.*?<svg[^>]*>`)
	fonts  = regexp.MustCompile(`font-family:[^;"]*;font-variant:[^;"]*;font-weight:[^;"]*;font-style:[^;"]*;`)
)

// inline makes a part of a page out of a file of vgsvg: no prolog, no
// namespaces, as wide as the page allows, the page's type, and its color
// instead of black.
func inline(svg, title string) htmltemplate.HTML {
	head := `<svg viewBox="0 0 ` + strconv.Itoa(chartWidth) + ` ` + strconv.Itoa(chartHeight) + `" role="img" aria-label="` +
		htmltemplate.HTMLEscapeString(title) + `">`
	svg = prolog.ReplaceAllLiteralString(svg, head)
	svg = fonts.ReplaceAllLiteralString(svg, "")
	return htmltemplate.HTML(strings.ReplaceAll(strings.TrimSpace(svg), "stroke:#000000", "stroke:currentColor"))
}
