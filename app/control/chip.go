package control

import (
	"fmt"
	"image/color"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/driver/desktop"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/theme"
)

// Chip is one of several choices that stand side by side, with a number if
// Count is not negative.
type Chip struct {
	widget.BaseWidget
	Title    string
	Count    int
	Chosen   bool
	OnTapped func()
	OnEscape func()

	over, focused bool
}

var (
	_ fyne.Tappable     = (*Chip)(nil)
	_ fyne.Focusable    = (*Chip)(nil)
	_ desktop.Hoverable = (*Chip)(nil)
)

// NewChip makes a chip without a number.
func NewChip(title string, tapped func()) *Chip {
	c := &Chip{Title: title, Count: -1, OnTapped: tapped}
	c.ExtendBaseWidget(c)
	return c
}

// Set changes what the chip shows, redrawing only on a change.
func (c *Chip) Set(count int, chosen bool) {
	if c.Count != count || c.Chosen != chosen {
		c.Count, c.Chosen = count, chosen
		c.Refresh()
	}
}

// Tapped implements fyne.Tappable.
func (c *Chip) Tapped(*fyne.PointEvent) { c.OnTapped() }

// FocusGained implements fyne.Focusable.
func (c *Chip) FocusGained() { c.focused = true; c.Refresh() }

// FocusLost implements fyne.Focusable.
func (c *Chip) FocusLost() { c.focused = false; c.Refresh() }

// TypedRune implements fyne.Focusable.
func (c *Chip) TypedRune(rune) {}

// TypedKey implements fyne.Focusable.
func (c *Chip) TypedKey(ev *fyne.KeyEvent) {
	switch ev.Name {
	case fyne.KeySpace, fyne.KeyReturn, fyne.KeyEnter:
		c.OnTapped()
	case fyne.KeyEscape:
		if c.OnEscape != nil {
			c.OnEscape()
		}
	}
}

// MouseIn implements desktop.Hoverable.
func (c *Chip) MouseIn(*desktop.MouseEvent) { c.over = true; c.Refresh() }

// MouseMoved implements desktop.Hoverable.
func (c *Chip) MouseMoved(*desktop.MouseEvent) {}

// MouseOut implements desktop.Hoverable.
func (c *Chip) MouseOut() { c.over = false; c.Refresh() }

// CreateRenderer implements fyne.Widget.
func (c *Chip) CreateRenderer() fyne.WidgetRenderer {
	r := &chipRenderer{chip: c, ground: canvas.NewRectangle(color.Transparent), title: canvas.NewText("", color.Transparent), count: canvas.NewText("", color.Transparent)}
	r.ground.CornerRadius = chipHeight / 2
	r.Refresh()
	return r
}

const chipHeight = 28

type chipRenderer struct {
	chip         *Chip
	ground       *canvas.Rectangle
	title, count *canvas.Text
}

// Destroy implements fyne.WidgetRenderer.
func (r *chipRenderer) Destroy() {}

// Objects implements fyne.WidgetRenderer.
func (r *chipRenderer) Objects() []fyne.CanvasObject {
	return []fyne.CanvasObject{r.ground, r.title, r.count}
}

// MinSize implements fyne.WidgetRenderer.
func (r *chipRenderer) MinSize() fyne.Size {
	// A chosen chip is not wider than the others, though its text is bold.
	width := 12 + fyne.MeasureText(r.chip.Title, r.title.TextSize, fyne.TextStyle{Bold: true}).Width + 12
	if r.count.Visible() {
		width += 6 + r.count.MinSize().Width
	}
	return fyne.NewSize(width, chipHeight)
}

// Layout implements fyne.WidgetRenderer.
func (r *chipRenderer) Layout(size fyne.Size) {
	Place(r.ground, 0, (size.Height-chipHeight)/2, size.Width, chipHeight)
	title, count := r.title.MinSize(), r.count.MinSize()
	Place(r.title, 12, (size.Height-title.Height)/2, title.Width, title.Height)
	Place(r.count, 12+title.Width+6, (size.Height-count.Height)/2, count.Width, count.Height)
}

// Refresh implements fyne.WidgetRenderer.
func (r *chipRenderer) Refresh() {
	c := r.chip
	p := NewPainter()
	fill, ink := color.Color(color.Transparent), p.Ink(fynetheme.ColorNameForeground)
	switch {
	case c.Chosen:
		fill = p.Ink(theme.Row)
	case c.over:
		fill = p.Ink(fynetheme.ColorNameHover)
	}
	stroke, width := p.Ink(fynetheme.ColorNameInputBorder), float32(1)
	switch {
	case c.focused:
		stroke, width = p.Ink(fynetheme.ColorNamePrimary), 2
	case c.Chosen:
		stroke = p.Ink(fynetheme.ColorNamePrimary)
	}
	SetRect(r.ground, fill, stroke, width)
	textSize := p.Size(fynetheme.SizeNameText) - 1
	r.title.TextStyle.Bold = c.Chosen
	SetText(r.title, c.Title, ink, textSize)
	number := ""
	if c.Count >= 0 {
		number = fmt.Sprint(c.Count)
	}
	SetText(r.count, number, p.Ink(theme.Muted), textSize)
	Show(r.count, number != "")
	r.Layout(c.Size())
}
