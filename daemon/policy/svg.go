package policy

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// bundle is what several qubes may call on several others: each on each, but
// none on itself.
type bundle struct {
	ask              bool
	services         []string
	sources, targets []string // sorted
}

// reach is what one qube may call: the targets of each list of services.
type reach struct {
	source   string
	ask      bool
	services string // joined by line ends
}

// bundles puts edges with the same services together, so that a picture has a
// line for a qube instead of one for a pair of qubes.
func bundles(edges []Edge) []bundle {
	type pair struct {
		source, target string
		ask            bool
	}
	services := map[pair][]string{}
	for _, e := range edges {
		p := pair{e.Source, e.Target, e.Ask}
		services[p] = append(services[p], e.Service)
	}
	targets := map[reach][]string{}
	for p, list := range services {
		slices.Sort(list)
		r := reach{p.source, p.ask, strings.Join(list, "\n")}
		targets[r] = append(targets[r], p.target)
	}
	order := slices.SortedFunc(maps.Keys(targets), func(a, b reach) int {
		return strings.Compare(fmt.Sprint(a.ask, a.services, "\n", a.source), fmt.Sprint(b.ask, b.services, "\n", b.source))
	})
	var found []bundle
	for _, r := range order {
		list := strings.Split(r.services, "\n")
		at := slices.IndexFunc(found, func(b bundle) bool {
			return b.ask == r.ask && slices.Equal(b.services, list) && b.fits(targets, r)
		})
		if at < 0 {
			found = append(found, bundle{ask: r.ask, services: list})
			at = len(found) - 1
		}
		found[at].sources = append(found[at].sources, r.source)
		found[at].targets = union(found[at].targets, targets[r])
	}
	return found
}

// fits tells whether one more source can be taken in: then each one reaches
// all targets of the whole but itself, and no other.
func (b bundle) fits(targets map[reach][]string, r reach) bool {
	all := union(b.targets, targets[r])
	for _, source := range append(slices.Clone(b.sources), r.source) {
		others := slices.DeleteFunc(slices.Clone(all), func(t string) bool { return t == source })
		if !slices.Equal(others, union(nil, targets[reach{source, r.ask, r.services}])) {
			return false
		}
	}
	return true
}

// union are the words of both lists, sorted, each once.
func union(a, b []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}

// Measures of the picture in pixels.
const (
	svgLine    = 18 // from one line of text to the next
	svgChar    = 8  // a character's width, with room to spare
	svgGap     = 14 // between boxes above each other
	svgMargin  = 20
	svgChannel = 110 // between columns, for the lines
	svgMost    = 14  // lines of services in one box
)

// svgBox is a box of the picture; y is its middle.
type svgBox struct {
	text   []string
	whole  string // all of it, where text is cut short
	colour string // of a qube; empty: a box of services
	dashed bool
	y      float64
}

func (b *svgBox) height() float64 { return float64(len(b.text)*svgLine + 8) }

// WriteSVG draws edges: those who call on the left, those who are called on
// the right, and between them what for. Dashed is what a person is asked
// about.
func WriteSVG(w io.Writer, s *System, edges []Edge) error {
	groups := bundles(edges)
	left, right, middle := map[string]*svgBox{}, map[string]*svgBox{}, make([]*svgBox, len(groups))
	y := float64(svgMargin + 2*svgLine)
	for i, g := range groups {
		b := &svgBox{text: slices.Clone(g.services), whole: strings.Join(g.services, "\n"), dashed: g.ask}
		if len(b.text) > svgMost {
			b.text = append(b.text[:svgMost-1], fmt.Sprintf("and %d more", len(g.services)-svgMost+1))
		}
		b.y = y + b.height()/2
		y += b.height() + svgGap
		middle[i] = b
		for _, name := range g.sources {
			s.attach(left, name)
		}
		for _, name := range g.targets {
			s.attach(right, name)
		}
	}
	high := max(y, stack(left, groups, middle, func(g bundle) []string { return g.sources }), stack(right, groups, middle, func(g bundle) []string { return g.targets }))
	var columns [3]float64 // width of each
	for i, boxes := range [][]*svgBox{slices.Collect(maps.Values(left)), middle, slices.Collect(maps.Values(right))} {
		for _, b := range boxes {
			for _, line := range b.text {
				columns[i] = max(columns[i], float64(len(line)*svgChar+20))
			}
		}
	}
	x := [3]float64{svgMargin, svgMargin + columns[0] + svgChannel, svgMargin + columns[0] + columns[1] + 2*svgChannel}
	out := bufio.NewWriter(w)
	wide := max(x[2]+columns[2]+svgMargin, 640)
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %[1]g %[2]g" font-family="sans-serif" font-size="12">`+"\n", wide, high+svgMargin)
	fmt.Fprintf(out, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n"+`<text x="%d" y="%d">Who may call (left) what (middle) of whom (right). Dashed: a person is asked. No qube calls itself.</text>`+"\n", svgMargin, svgMargin+8)
	for i, g := range groups {
		for _, name := range g.sources {
			curve(out, x[0]+columns[0], left[name].y, x[1], middle[i].y, g.ask)
		}
		for _, name := range g.targets {
			curve(out, x[1]+columns[1], middle[i].y, x[2], right[name].y, g.ask)
		}
	}
	for i, boxes := range [][]*svgBox{sorted(left), middle, sorted(right)} {
		for _, b := range boxes {
			b.write(out, x[i], columns[i])
		}
	}
	fmt.Fprintln(out, "</svg>")
	return out.Flush()
}

// attach makes a qube's box.
func (s *System) attach(boxes map[string]*svgBox, name string) {
	if boxes[name] != nil {
		return
	}
	b := &svgBox{text: []string{name}, whole: name, colour: "#888888"}
	base, disposable := strings.CutPrefix(name, "@dispvm:")
	if disposable {
		b.text[0] = "disposable (" + base + ")"
	}
	if d, ok := s.Lookup(base); ok {
		if c, ok := strings.CutPrefix(d.Label, "0x"); ok && len(c) == 6 && isWord(c, "") {
			b.colour = "#" + c
		}
	}
	boxes[name] = b
}

// stack places the boxes of a column below each other, each near the middle
// of what it is tied to, and returns where the column ends.
func stack(column map[string]*svgBox, groups []bundle, middle []*svgBox, of func(bundle) []string) float64 {
	ties := map[*svgBox]float64{}
	for i, g := range groups {
		for _, name := range of(g) {
			column[name].y += middle[i].y
			ties[column[name]]++
		}
	}
	for _, b := range column {
		b.y /= ties[b]
	}
	y := float64(svgMargin + 2*svgLine)
	for _, b := range sorted(column) {
		b.y = max(b.y, y+b.height()/2)
		y = b.y + b.height()/2 + svgGap
	}
	return y
}

// sorted are the boxes of a column from above.
func sorted(column map[string]*svgBox) []*svgBox {
	return slices.SortedFunc(maps.Values(column), func(a, b *svgBox) int {
		switch {
		case a.y < b.y:
			return -1
		case a.y > b.y:
			return 1
		}
		return strings.Compare(a.whole, b.whole)
	})
}

func curve(w io.Writer, x0, y0, x1, y1 float64, dashed bool) {
	dash := ""
	if dashed {
		dash = ` stroke-dasharray="5 4"`
	}
	mid := (x0 + x1) / 2
	fmt.Fprintf(w, `<path d="M%g %g C%[3]g %[2]g %[3]g %[5]g %[4]g %[5]g" fill="none" stroke="#777777"%[6]s/>`+"\n", x0, y0, mid, x1, y1, dash)
}

func (b *svgBox) write(w io.Writer, x, width float64) {
	top := b.y - b.height()/2
	stroke := "#bbbbbb"
	if b.colour != "" {
		stroke = b.colour
	}
	dash := ""
	if b.dashed {
		dash = ` stroke-dasharray="5 4"`
	}
	fmt.Fprintf(w, `<g><title>%s</title><rect x="%g" y="%g" width="%g" height="%g" rx="3" fill="#fafafa" stroke="%s"%s/>`, escapeXML(b.whole), x, top, width, b.height(), stroke, dash)
	if b.colour != "" {
		fmt.Fprintf(w, `<rect x="%g" y="%g" width="6" height="%g" fill="%s"/>`, x, top, b.height(), b.colour)
	}
	for i, line := range b.text {
		fmt.Fprintf(w, `<text x="%g" y="%g">%s</text>`, x+12, top+float64(i*svgLine)+svgLine-1, escapeXML(line))
	}
	fmt.Fprintln(w, "</g>")
}

func escapeXML(text string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(text)); err != nil {
		return "" // a Builder does not fail
	}
	return b.String()
}
