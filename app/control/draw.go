package control

import (
	"image/color"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
)

// Painter looks colours and sizes of the theme up.
type Painter struct {
	Theme   fyne.Theme
	Variant fyne.ThemeVariant
}

// NewPainter is the painter for the application's settings of now.
func NewPainter() Painter {
	s := fyne.CurrentApp().Settings()
	return Painter{s.Theme(), s.ThemeVariant()}
}

// Ink is a colour of the theme.
func (p Painter) Ink(name fyne.ThemeColorName) color.Color { return p.Theme.Color(name, p.Variant) }

// Size is a size of the theme.
func (p Painter) Size(name fyne.ThemeSizeName) float32 { return p.Theme.Size(name) }

// The setters below redraw an object only when it changes: painting is what
// costs.

// Place moves and resizes.
func Place(o fyne.CanvasObject, x, y, w, h float32) {
	if pos := fyne.NewPos(x, y); o.Position() != pos {
		o.Move(pos)
	}
	if size := fyne.NewSize(max(w, 0), max(h, 0)); o.Size() != size {
		o.Resize(size)
	}
}

// Show shows or hides.
func Show(o fyne.CanvasObject, visible bool) {
	switch {
	case visible && !o.Visible():
		o.Show()
	case !visible && o.Visible():
		o.Hide()
	}
}

// SetRect colours a rectangle.
func SetRect(r *canvas.Rectangle, fill, stroke color.Color, width float32) {
	if r.FillColor != fill || r.StrokeColor != stroke || r.StrokeWidth != width {
		r.FillColor, r.StrokeColor, r.StrokeWidth = fill, stroke, width
		r.Refresh()
	}
}

// SetText writes a text.
func SetText(t *canvas.Text, text string, ink color.Color, textSize float32) {
	if t.Text != text || t.Color != ink || t.TextSize != textSize {
		t.Text, t.Color, t.TextSize = text, ink, textSize
		t.Refresh()
	}
}

// SetImage shows a drawing; drawings of one name are the same.
func SetImage(i *canvas.Image, r fyne.Resource) {
	if i.Resource == nil || i.Resource.Name() != r.Name() {
		i.Resource = r
		i.Refresh()
	}
}

// hair is a radius below a pixel. Fyne draws rectangles with a radius by one
// shader and those without by another, and where there is no graphics
// hardware each one costs a window's first picture tens of milliseconds.
const hair = 1.0 / 64

// NewRectangle makes a rectangle without colours, and without corners that
// could be seen to be round.
func NewRectangle() *canvas.Rectangle {
	r := canvas.NewRectangle(color.Transparent)
	r.CornerRadius = hair
	return r
}
