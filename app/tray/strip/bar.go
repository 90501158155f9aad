package strip

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"image/color"
	"image/png"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/driver/desktop"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/theme"
)

// Height of the strip, in Fyne's units.
const Height = 32

// Piece is something in the strip that can be clicked: a qube's chip, or a
// tray icon.
type Piece struct {
	Key  string // tells it from the others
	Icon fyne.Resource
	Text string // empty: the icon alone
	Dim  bool   // it is there, but not at work
	// OnOpen is called by a click or by Enter, OnOther by the other button.
	OnOpen, OnOther func()
}

// Bar is the strip's content: chips at the left, tray icons at the right.
// What does not fit is behind a chip that tells its number.
type Bar struct {
	widget.BaseWidget

	// OnMore is called when the chip for what does not fit is clicked.
	OnMore func()

	chips, icons []Piece
	buttons      map[string]*button
	more         *button
	ground, edge *canvas.Rectangle
}

// NewBar makes an empty strip.
func NewBar() *Bar {
	b := &Bar{buttons: map[string]*button{}, ground: canvas.NewRectangle(color.Transparent), edge: canvas.NewRectangle(color.Transparent)}
	b.more = newButton()
	b.ExtendBaseWidget(b)
	return b
}

// Fill shows other chips and icons. One that keeps its key keeps the focus.
func (b *Bar) Fill(chips, icons []Piece) {
	b.chips, b.icons = chips, icons
	keep := map[string]*button{}
	for _, list := range [][]Piece{chips, icons} {
		for _, p := range list {
			o := b.buttons[p.Key]
			if o == nil {
				o = newButton()
			}
			o.show(p)
			keep[p.Key] = o
		}
	}
	b.buttons = keep
	b.Refresh()
}

// Anchor is where a piece is in the strip; ok is false when it cannot be
// seen.
func (b *Bar) Anchor(key string) (pos fyne.Position, size fyne.Size, ok bool) {
	o := b.buttons[key]
	if key == MoreKey {
		o = b.more
	}
	if o == nil || !o.Visible() {
		return fyne.Position{}, fyne.Size{}, false
	}
	return o.Position(), o.Size(), true
}

// left takes the pointer's mark away.
func (b *Bar) left() {
	b.more.MouseOut()
	for _, o := range b.buttons {
		o.MouseOut()
	}
}

// MoreKey is the key of the chip for what does not fit.
const MoreKey = "…"

// CreateRenderer implements fyne.Widget.
func (b *Bar) CreateRenderer() fyne.WidgetRenderer { return &barRenderer{b} }

type barRenderer struct{ b *Bar }

// Destroy implements fyne.WidgetRenderer.
func (r *barRenderer) Destroy() {}

// Objects implements fyne.WidgetRenderer: in the order of the Tab key.
func (r *barRenderer) Objects() []fyne.CanvasObject {
	out := []fyne.CanvasObject{r.b.ground, r.b.edge}
	for _, p := range r.b.chips {
		out = append(out, r.b.buttons[p.Key])
	}
	out = append(out, r.b.more)
	for _, p := range r.b.icons {
		out = append(out, r.b.buttons[p.Key])
	}
	return out
}

// MinSize implements fyne.WidgetRenderer.
func (r *barRenderer) MinSize() fyne.Size { return fyne.NewSize(Height, Height) }

const barPad, barGap = 4, 2

// Layout implements fyne.WidgetRenderer.
func (r *barRenderer) Layout(size fyne.Size) {
	b := r.b
	control.Place(b.ground, 0, 0, size.Width, size.Height)
	control.Place(b.edge, 0, size.Height-1, size.Width, 1)
	right := size.Width - barPad
	for i := len(b.icons) - 1; i >= 0; i-- {
		o := b.buttons[b.icons[i].Key]
		m := o.MinSize()
		right -= m.Width
		control.Show(o, right >= barPad)
		control.Place(o, right, 0, m.Width, size.Height-1)
		right -= barGap
	}
	left, hidden := float32(barPad), 0
	for i, p := range b.chips {
		o := b.buttons[p.Key]
		m := o.MinSize()
		room := right - 2*barGap
		if i < len(b.chips)-1 || hidden > 0 {
			room -= b.moreWidth()
		}
		if hidden > 0 || left+m.Width > room {
			hidden++
			control.Show(o, false)
			continue
		}
		control.Show(o, true)
		control.Place(o, left, 0, m.Width, size.Height-1)
		left += m.Width + barGap
	}
	control.Show(b.more, hidden > 0)
	if hidden > 0 {
		b.more.show(Piece{Key: MoreKey, Text: fmt.Sprintf("+%d", hidden), OnOpen: b.OnMore})
		control.Place(b.more, left, 0, b.more.MinSize().Width, size.Height-1)
	}
}

// moreWidth is what the last chip needs at most.
func (b *Bar) moreWidth() float32 {
	p := control.NewPainter()
	return fyne.MeasureText("+000", p.Size(fynetheme.SizeNameText), fyne.TextStyle{}).Width + 2*buttonPad + barGap
}

// Refresh implements fyne.WidgetRenderer.
func (r *barRenderer) Refresh() {
	p := control.NewPainter()
	control.SetRect(r.b.ground, p.Ink(theme.Panel), color.Transparent, 0)
	control.SetRect(r.b.edge, p.Ink(fynetheme.ColorNameSeparator), color.Transparent, 0)
	for _, o := range r.b.buttons {
		o.Refresh()
	}
	r.b.more.Refresh()
	r.Layout(r.b.Size())
	canvas.Refresh(r.b)
}

// button is a piece as a widget.
type button struct {
	widget.BaseWidget
	piece         Piece
	over, focused bool
}

func newButton() *button {
	b := &button{}
	b.ExtendBaseWidget(b)
	return b
}

func (b *button) show(p Piece) {
	b.piece = p
	b.Refresh()
}

// Tapped implements fyne.Tappable.
func (b *button) Tapped(*fyne.PointEvent) { call(b.piece.OnOpen) }

// TappedSecondary implements fyne.SecondaryTappable.
func (b *button) TappedSecondary(*fyne.PointEvent) {
	if b.piece.OnOther != nil {
		b.piece.OnOther()
		return
	}
	call(b.piece.OnOpen)
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// FocusGained implements fyne.Focusable.
func (b *button) FocusGained() { b.focused = true; b.Refresh() }

// FocusLost implements fyne.Focusable.
func (b *button) FocusLost() { b.focused = false; b.Refresh() }

// TypedRune implements fyne.Focusable.
func (b *button) TypedRune(rune) {}

// TypedKey implements fyne.Focusable.
func (b *button) TypedKey(ev *fyne.KeyEvent) {
	c := fyne.CurrentApp().Driver().CanvasForObject(b)
	switch ev.Name {
	case fyne.KeySpace, fyne.KeyReturn, fyne.KeyEnter, fyne.KeyDown:
		call(b.piece.OnOpen)
	case fyne.KeyRight:
		c.FocusNext()
	case fyne.KeyLeft:
		c.FocusPrevious()
	}
}

// MouseIn implements desktop.Hoverable.
func (b *button) MouseIn(*desktop.MouseEvent) { b.over = true; b.Refresh() }

// MouseMoved implements desktop.Hoverable.
func (b *button) MouseMoved(ev *desktop.MouseEvent) {
	if !b.over {
		b.MouseIn(ev) // it had left the window
	}
}

// MouseOut implements desktop.Hoverable.
func (b *button) MouseOut() {
	if b.over {
		b.over = false
		b.Refresh()
	}
}

const buttonPad, buttonIcon, bareIcon, buttonGap = 8, 18, 24, 6

// iconSize is larger where the icon stands alone.
func (p Piece) iconSize() float32 {
	if p.Text == "" {
		return bareIcon
	}
	return buttonIcon
}

// CreateRenderer implements fyne.Widget.
func (b *button) CreateRenderer() fyne.WidgetRenderer {
	r := &buttonRenderer{b: b, ground: canvas.NewRectangle(color.Transparent), icon: canvas.NewImageFromResource(nil), text: canvas.NewText("", color.Transparent)}
	r.icon.FillMode = canvas.ImageFillContain
	r.ground.CornerRadius = 6
	r.Refresh()
	return r
}

type buttonRenderer struct {
	b      *button
	ground *canvas.Rectangle
	icon   *canvas.Image
	text   *canvas.Text
}

// Destroy implements fyne.WidgetRenderer.
func (r *buttonRenderer) Destroy() {}

// Objects implements fyne.WidgetRenderer.
func (r *buttonRenderer) Objects() []fyne.CanvasObject {
	return []fyne.CanvasObject{r.ground, r.icon, r.text}
}

// MinSize implements fyne.WidgetRenderer.
func (r *buttonRenderer) MinSize() fyne.Size {
	width := float32(2 * buttonPad)
	if r.b.piece.Icon != nil {
		width += r.b.piece.iconSize()
	}
	if r.b.piece.Text != "" {
		if r.b.piece.Icon != nil {
			width += buttonGap
		}
		width += r.text.MinSize().Width
	}
	return fyne.NewSize(width, Height-1)
}

// Layout implements fyne.WidgetRenderer.
func (r *buttonRenderer) Layout(size fyne.Size) {
	control.Place(r.ground, 0, 3, size.Width, size.Height-6)
	x := float32(buttonPad)
	if r.b.piece.Icon != nil {
		side := r.b.piece.iconSize()
		control.Place(r.icon, x, (size.Height-side)/2, side, side)
		x += side + buttonGap
	}
	text := r.text.MinSize()
	control.Place(r.text, x, (size.Height-text.Height)/2, text.Width, text.Height)
}

// Refresh implements fyne.WidgetRenderer.
func (r *buttonRenderer) Refresh() {
	p, b := control.NewPainter(), r.b
	fill, stroke, width := color.Color(color.Transparent), color.Color(color.Transparent), float32(0)
	if b.over {
		fill = p.Ink(fynetheme.ColorNameHover)
	}
	if b.focused {
		stroke, width = p.Ink(fynetheme.ColorNamePrimary), 2
	}
	control.SetRect(r.ground, fill, stroke, width)
	ink, fade := p.Ink(fynetheme.ColorNameForeground), 0.0
	if b.piece.Dim {
		ink, fade = p.Ink(theme.Muted), 0.5
	}
	control.SetText(r.text, b.piece.Text, ink, p.Size(fynetheme.SizeNameText))
	if b.piece.Icon != nil {
		control.SetImage(r.icon, b.piece.Icon)
		if r.icon.Translucency != fade {
			r.icon.Translucency = fade
			r.icon.Refresh()
		}
	}
	control.Show(r.icon, b.piece.Icon != nil)
	r.Layout(b.Size())
}

// maxIcon bounds the pixels of a menu's icon, which other programs send.
const maxIcon = 512

// pngResource makes a resource of an icon's file, or nil when it is none.
func pngResource(file []byte) fyne.Resource {
	if len(file) == 0 {
		return nil
	}
	c, err := png.DecodeConfig(bytes.NewReader(file))
	if err != nil || c.Width > maxIcon || c.Height > maxIcon {
		return nil
	}
	sum := fnv.New64a()
	sum.Write(file)
	return fyne.NewStaticResource(fmt.Sprintf("icon-%x.png", sum.Sum64()), file)
}
