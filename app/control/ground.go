package control

import (
	"image/color"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
)

// Ground is a rectangle whose colours follow the theme.
type Ground struct {
	widget.BaseWidget
	fill, edge fyne.ThemeColorName // edge empty: none
	radius     float32
	high       float32 // at least
}

// NewGround makes a ground; edge is empty for none, fill for a mere outline.
func NewGround(fill, edge fyne.ThemeColorName, radius float32) *Ground {
	g := &Ground{fill: fill, edge: edge, radius: radius}
	g.ExtendBaseWidget(g)
	return g
}

// NewEdge makes a line between what stands above and what stands below.
func NewEdge() *Ground {
	g := NewGround(fynetheme.ColorNameSeparator, "", 0)
	g.high = 1
	return g
}

// CreateRenderer implements fyne.Widget.
func (g *Ground) CreateRenderer() fyne.WidgetRenderer {
	r := NewRectangle()
	r.CornerRadius = max(g.radius, hair)
	return &groundRenderer{ground: g, rect: r}
}

type groundRenderer struct {
	ground *Ground
	rect   *canvas.Rectangle
}

func (r *groundRenderer) Destroy()                     {}
func (r *groundRenderer) Layout(size fyne.Size)        { r.rect.Resize(size); r.Refresh() }
func (r *groundRenderer) MinSize() fyne.Size           { return fyne.NewSize(0, r.ground.high) }
func (r *groundRenderer) Objects() []fyne.CanvasObject { return []fyne.CanvasObject{r.rect} }
func (r *groundRenderer) Refresh() {
	p := NewPainter()
	stroke, width := color.Color(color.Transparent), float32(0)
	if r.ground.edge != "" {
		stroke, width = p.Ink(r.ground.edge), 1
	}
	fill := color.Color(color.Transparent)
	if r.ground.fill != "" {
		fill = p.Ink(r.ground.fill)
	}
	SetRect(r.rect, fill, stroke, width)
}
