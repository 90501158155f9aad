package window

import (
	"math"
	"slices"
)

// Bounds are the limits of dom0's screen.
type Bounds struct {
	Root   Size // of the root window
	Work   Rect // without panels; all of the root when nobody says
	Border int  // width of the frame around a content, in pixels
}

// Outer is the place of the frame around a content.
func (b Bounds) Outer(g Geometry) Rect {
	return Rect{g.X - b.Border, g.Y - b.Border, g.Width + 2*b.Border, g.Height + 2*b.Border}
}

// inner is the content within a frame.
func (b Bounds) inner(r Rect) Geometry {
	return Geometry{r.X + b.Border, r.Y + b.Border, max(1, r.Width-2*b.Border), max(1, r.Height-2*b.Border)}
}

// force returns where a borderless window may be: with its whole frame within
// the work area (spec/gui-protocol.md §11.1). One that is entirely off the
// screen, and so shows nothing, is left alone.
func (b Bounds) force(g Geometry) Geometry {
	if !b.shows(g) {
		return g
	}
	return b.within(g)
}

// shows tells whether any pixel of a window and its frame is on the screen.
func (b Bounds) shows(g Geometry) bool {
	return !b.Outer(g).Intersect(Rect{0, 0, b.Root.Width, b.Root.Height}).Empty()
}

// within moves and cuts a window so that its whole frame is in the work area.
func (b Bounds) within(g Geometry) Geometry {
	r := b.Outer(g)
	r.Width, r.Height = min(r.Width, b.Work.Width), min(r.Height, b.Work.Height)
	r.X, r.Y = max(r.X, b.Work.X), max(r.Y, b.Work.Y)
	r.X = min(r.X, b.Work.X+b.Work.Width-r.Width)
	r.Y = min(r.Y, b.Work.Y+b.Work.Height-r.Height)
	return b.inner(r)
}

// overridePercent is the largest share of the work area that borderless
// windows may cover (spec/gui-protocol.md §11.2), each and all together.
const overridePercent = 90

// tooLarge tells whether a borderless window would cover too much, alone or
// with the others of its qube.
func (b Bounds) tooLarge(g Geometry, others []Geometry) bool {
	limit := int64(b.Work.Width) * int64(b.Work.Height) * overridePercent
	r := b.Outer(g)
	if int64(r.Width)*int64(r.Height)*100 > limit {
		return true
	}
	if len(others) == 0 {
		return false
	}
	var rects []Rect
	for _, g := range append(others, g) {
		if r := b.Outer(g).Intersect(b.Work); !r.Empty() {
			rects = append(rects, r)
		}
	}
	return covered(rects)*100 > limit
}

// covered is the number of pixels that rectangles cover together.
func covered(rects []Rect) int64 {
	var xs []int
	for _, r := range rects {
		xs = append(xs, r.X, r.X+r.Width)
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	slices.SortFunc(rects, func(a, b Rect) int { return a.Y - b.Y })
	var sum int64
	for i := range len(xs) - 1 { // a strip between two edges, top to bottom
		height, below := 0, math.MinInt
		for _, r := range rects {
			if r.X <= xs[i] && r.X+r.Width >= xs[i+1] && r.Y+r.Height > below {
				height += r.Y + r.Height - max(r.Y, below)
				below = r.Y + r.Height
			}
		}
		sum += int64(height) * int64(xs[i+1]-xs[i])
	}
	return sum
}
