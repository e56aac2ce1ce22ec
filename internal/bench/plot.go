package main

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

// colours are told apart by those who do not see red and green, too.
var colours = []string{"#9aa5b1", "#1f6fb4", "#d9822b", "#6b4c9a"}

// A picture is an SVG that is being drawn.
type picture struct {
	bytes.Buffer
}

func newPicture(width, height int, title string) *picture {
	p := new(picture)
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(p, "<title>%s</title>\n", title)
	fmt.Fprintf(p, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	p.label(16, 22, "start", title)
	return p
}

func (p *picture) label(x, y float64, anchor, text string) {
	fmt.Fprintf(p, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="#222">%s</text>`+"\n", x, y, anchor, text)
}

func (p *picture) line(x1, y1, x2, y2 float64, colour string, width float64) {
	fmt.Fprintf(p, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%g"/>`+"\n", x1, y1, x2, y2, colour, width)
}

func (p *picture) bar(x, y, width, height float64, colour string) {
	fmt.Fprintf(p, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, width, height, colour)
}

// legend names the colours in a row.
func (p *picture) legend(x, y float64, names []string) {
	for i, name := range names {
		p.bar(x, y-10, 12, 12, colours[i])
		p.label(x+18, y, "start", name)
		x += 110
	}
}

func (p *picture) end() []byte {
	p.WriteString("</svg>\n")
	return p.Bytes()
}

// plotChecks draws the CPU a check, a bar for each server under each load, on a logarithmic scale.
func plotChecks(r *results) []byte {
	const left, top, row, bar, width = 130.0, 70.0, 48.0, 13.0, 560.0
	servers := []string{noop, extauthz, stockOPA}
	height := top + row*float64(len(scenarioRows)) + 30
	p := newPicture(int(left+width+70), int(height), "CPU a check in microseconds, median (logarithmic; shorter is better)")
	p.legend(left, 46, servers)
	const least, most = 10.0, 2000.0
	at := func(v float64) float64 { return left + width*math.Log(max(v, least)/least)/math.Log(most/least) }
	for _, tick := range []float64{10, 20, 50, 100, 200, 500, 1000, 2000} {
		p.line(at(tick), top-8, at(tick), height-24, "#ddd", 1)
		p.label(at(tick), height-8, "middle", fmt.Sprintf("%.0f", tick))
	}
	for i, scenario := range scenarioRows {
		y := top + row*float64(i)
		p.label(left-8, y+row/2-4, "end", scenario.name)
		for n, server := range servers {
			cells := r.of(groupChecks, server, scenario.name)
			if len(cells) == 0 {
				continue
			}
			value := median(each(cells, cpuOf))
			p.bar(left, y+bar*float64(n), at(value)-left, bar-1, colours[n])
			p.label(at(value)+4, y+bar*float64(n)+bar-3, "start", fmt.Sprintf("%.0f", value))
		}
	}
	return p.end()
}

// plotScale draws the curves: the cost as a ratio to the cost at the smallest size, over the size.
func plotScale(r *results) []byte {
	const left, top, width, height = 60.0, 70.0, 560.0, 260.0
	p := newPicture(int(left+width+40), int(top+height+50), "CPU a warm check, as a ratio to the smallest size")
	const most = 2.0
	x := func(n int) float64 { return left + width*math.Log10(float64(n))/5 }
	y := func(v float64) float64 { return top + height*(1-min(v, most)/most) }
	for exponent := range 6 {
		n := int(math.Pow10(exponent))
		p.line(x(n), top, x(n), top+height, "#ddd", 1)
		p.label(x(n), top+height+18, "middle", thousands(float64(n)))
	}
	for tick := 0.0; tick <= most; tick += 0.5 {
		p.line(left, y(tick), left+width, y(tick), "#ddd", 1)
		p.label(left-8, y(tick)+4, "end", fmt.Sprintf("%.1f", tick))
	}
	var names []string
	for i, c := range curves {
		names = append(names, c.name)
		p.curve(r, c.name, c.sizes, colours[i], x, y)
	}
	p.legend(left, 46, names)
	return p.end()
}

func (p *picture) curve(r *results, name string, sizes []int, colour string, x func(int) float64, y func(float64) float64) {
	var fromX, fromY float64
	for i, n := range sizes {
		if !r.has(name, extauthz, strconv.Itoa(n)) {
			return
		}
		toX, toY := x(n), y(r.growth(name, sizes[0], n))
		if i > 0 {
			p.line(fromX, fromY, toX, toY, colour, 2)
		}
		fmt.Fprintf(p, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", toX, toY, colour)
		fromX, fromY = toX, toY
	}
}

// plotCache draws what finding a token costs, and what it takes, over how many there are.
func plotCache(r *results) []byte {
	const left, top, width, height = 60.0, 70.0, 560.0, 200.0
	p := newPicture(int(left+width+60), int(top+height+50), "The cache of verified tokens: CPU of finding one, in microseconds, and KiB of heap each")
	const most = 6.0
	x := func(n int) float64 { return left + width*(math.Log10(float64(n))-1)/5 }
	y := func(v float64) float64 { return top + height*(1-min(v, most)/most) }
	for _, n := range cacheSizes {
		p.line(x(n), top, x(n), top+height, "#ddd", 1)
		p.label(x(n), top+height+18, "middle", thousands(float64(n)))
	}
	for tick := 0.0; tick <= most; tick += 2 {
		p.line(left, y(tick), left+width, y(tick), "#ddd", 1)
		p.label(left-8, y(tick)+4, "end", fmt.Sprintf("%.0f", tick))
	}
	lines := []struct {
		name  string
		value func(cells []cell) float64
	}{
		{"heap, KiB", func(cells []cell) float64 { return cells[0].perToken(cells[0].Heap) / 1024 }},
		{"find, µs", func(cells []cell) float64 { return median(each(cells, cpuOf)) }},
	}
	var names []string
	for i, line := range lines {
		names = append(names, line.name)
		var fromX, fromY float64
		for _, n := range cacheSizes {
			cells := r.of(curveCache, extauthz, strconv.Itoa(n))
			if len(cells) == 0 {
				continue
			}
			toX, toY := x(n), y(line.value(cells))
			if fromX > 0 {
				p.line(fromX, fromY, toX, toY, colours[i], 2)
			}
			fmt.Fprintf(p, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", toX, toY, colours[i])
			fromX, fromY = toX, toY
		}
	}
	p.legend(left, 46, names)
	return p.end()
}
