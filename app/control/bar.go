package control

import (
	"image/color"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/theme"
)

// Bar is a slim progress bar; its text, if any, stands beside it.
type Bar struct {
	widget.BaseWidget
	Value float64 // 0 to 1
}

// NewBar makes an empty bar.
func NewBar() *Bar {
	b := &Bar{}
	b.ExtendBaseWidget(b)
	return b
}

// Set changes the value, redrawing only on a change.
func (b *Bar) Set(value float64) {
	if b.Value != value {
		b.Value = value
		b.Refresh()
	}
}

// CreateRenderer implements fyne.Widget.
func (b *Bar) CreateRenderer() fyne.WidgetRenderer {
	r := &barRenderer{bar: b, track: canvas.NewRectangle(color.Transparent), fill: canvas.NewRectangle(color.Transparent)}
	r.track.CornerRadius, r.fill.CornerRadius = barHigh/2, barHigh/2
	return r
}

const (
	barHigh = 6
	barWide = 120
)

type barRenderer struct {
	bar         *Bar
	track, fill *canvas.Rectangle
}

// Destroy implements fyne.WidgetRenderer.
func (r *barRenderer) Destroy() {}

// MinSize implements fyne.WidgetRenderer.
func (r *barRenderer) MinSize() fyne.Size { return fyne.NewSize(barWide, barHigh) }

// Objects implements fyne.WidgetRenderer.
func (r *barRenderer) Objects() []fyne.CanvasObject { return []fyne.CanvasObject{r.track, r.fill} }

// Layout implements fyne.WidgetRenderer.
func (r *barRenderer) Layout(size fyne.Size) {
	y := (size.Height - barHigh) / 2
	Place(r.track, 0, y, size.Width, barHigh)
	Place(r.fill, 0, y, max(barHigh, size.Width*float32(min(max(r.bar.Value, 0), 1))), barHigh)
}

// Refresh implements fyne.WidgetRenderer.
func (r *barRenderer) Refresh() {
	p := NewPainter()
	SetRect(r.track, p.Ink(theme.Track), color.Transparent, 0)
	SetRect(r.fill, p.Ink(fynetheme.ColorNamePrimary), color.Transparent, 0)
	r.Layout(r.bar.Size())
}
