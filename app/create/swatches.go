package create

import (
	"image/color"
	"slices"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/driver/desktop"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme"
	"cubicle/theme/label"
)

// Swatches lets people choose a label by its colour; the chosen one's name
// stands beside, for those who do not see colours.
type Swatches struct {
	widget.BaseWidget
	Labels    []dom0.Label
	Selected  string
	OnChanged func(string)
	OnEscape  func()

	focused bool
	over    int
}

var (
	_ fyne.Tappable     = (*Swatches)(nil)
	_ fyne.Focusable    = (*Swatches)(nil)
	_ desktop.Hoverable = (*Swatches)(nil)
)

// Measures of the swatches.
const (
	swatch     = 24
	swatchStep = 34
)

// NewSwatches makes the row of colours.
func NewSwatches(labels []dom0.Label, changed func(string)) *Swatches {
	s := &Swatches{Labels: labels, OnChanged: changed, over: -1}
	s.ExtendBaseWidget(s)
	return s
}

// SetLabels replaces the colours; the choice stays where it can.
func (s *Swatches) SetLabels(labels []dom0.Label) {
	if slices.Equal(labels, s.Labels) {
		return
	}
	s.Labels = slices.Clone(labels)
	if !slices.ContainsFunc(labels, func(l dom0.Label) bool { return l.Name == s.Selected }) {
		s.Selected = ""
	}
	s.Refresh()
}

// Select chooses the label of that name, if there is one.
func (s *Swatches) Select(name string) {
	if name == s.Selected || !slices.ContainsFunc(s.Labels, func(l dom0.Label) bool { return l.Name == name }) {
		return
	}
	s.Selected = name
	s.Refresh()
	if s.OnChanged != nil {
		s.OnChanged(name)
	}
}

func (s *Swatches) index() int {
	return slices.IndexFunc(s.Labels, func(l dom0.Label) bool { return l.Name == s.Selected })
}

func (s *Swatches) step(by int) {
	if n := len(s.Labels); n > 0 {
		s.Select(s.Labels[min(max(s.index()+by, 0), n-1)].Name)
	}
}

func (s *Swatches) at(x float32) int {
	if i := int(x) / swatchStep; x >= 0 && i < len(s.Labels) {
		return i
	}
	return -1
}

// Tapped implements fyne.Tappable.
func (s *Swatches) Tapped(ev *fyne.PointEvent) {
	if c := fyne.CurrentApp().Driver().CanvasForObject(s); c != nil {
		c.Focus(s)
	}
	if i := s.at(ev.Position.X); i >= 0 {
		s.Select(s.Labels[i].Name)
	}
}

// FocusGained implements fyne.Focusable.
func (s *Swatches) FocusGained() { s.focused = true; s.Refresh() }

// FocusLost implements fyne.Focusable.
func (s *Swatches) FocusLost() { s.focused = false; s.Refresh() }

// TypedRune implements fyne.Focusable.
func (s *Swatches) TypedRune(rune) {}

// TypedKey implements fyne.Focusable.
func (s *Swatches) TypedKey(ev *fyne.KeyEvent) {
	switch ev.Name {
	case fyne.KeyLeft, fyne.KeyUp:
		s.step(-1)
	case fyne.KeyRight, fyne.KeyDown:
		s.step(1)
	case fyne.KeyHome:
		s.step(-len(s.Labels))
	case fyne.KeyEnd:
		s.step(len(s.Labels))
	case fyne.KeyEscape:
		if s.OnEscape != nil {
			s.OnEscape()
		}
	}
}

// MouseIn implements desktop.Hoverable.
func (s *Swatches) MouseIn(ev *desktop.MouseEvent) { s.MouseMoved(ev) }

// MouseMoved implements desktop.Hoverable.
func (s *Swatches) MouseMoved(ev *desktop.MouseEvent) {
	if i := s.at(ev.Position.X); i != s.over {
		s.over = i
		s.Refresh()
	}
}

// MouseOut implements desktop.Hoverable.
func (s *Swatches) MouseOut() { s.over = -1; s.Refresh() }

// CreateRenderer implements fyne.Widget.
func (s *Swatches) CreateRenderer() fyne.WidgetRenderer {
	r := &swatchRenderer{swatches: s, name: canvas.NewText("", color.Transparent)}
	r.Refresh()
	return r
}

type swatchRenderer struct {
	swatches *Swatches
	rings    []*canvas.Rectangle // around the chosen one
	fills    []*canvas.Rectangle
	name     *canvas.Text
	objects  []fyne.CanvasObject
}

// Destroy implements fyne.WidgetRenderer.
func (r *swatchRenderer) Destroy() {}

// Objects implements fyne.WidgetRenderer.
func (r *swatchRenderer) Objects() []fyne.CanvasObject { return r.objects }

// MinSize implements fyne.WidgetRenderer.
func (r *swatchRenderer) MinSize() fyne.Size {
	widest := float32(0)
	for _, l := range r.swatches.Labels {
		widest = max(widest, fyne.MeasureText(words.Label(l.Name), r.name.TextSize, r.name.TextStyle).Width)
	}
	return fyne.NewSize(float32(len(r.swatches.Labels))*swatchStep+8+widest, swatchStep)
}

// Layout implements fyne.WidgetRenderer.
func (r *swatchRenderer) Layout(size fyne.Size) {
	for i := range r.fills {
		x, y := float32(i*swatchStep), (size.Height-swatch)/2
		r.fills[i].Move(fyne.NewPos(x+4, y))
		r.fills[i].Resize(fyne.NewSquareSize(swatch))
		r.rings[i].Move(fyne.NewPos(x, y-4))
		r.rings[i].Resize(fyne.NewSquareSize(swatch + 8))
	}
	measured := r.name.MinSize()
	r.name.Move(fyne.NewPos(float32(len(r.fills)*swatchStep)+8, (size.Height-measured.Height)/2))
	r.name.Resize(measured)
}

// Refresh implements fyne.WidgetRenderer.
func (r *swatchRenderer) Refresh() {
	s := r.swatches
	th, variant := s.Theme(), fyne.CurrentApp().Settings().ThemeVariant()
	ground, _ := th.Color(fynetheme.ColorNameOverlayBackground, variant).(color.NRGBA)
	if len(r.fills) != len(s.Labels) {
		r.fills, r.rings, r.objects = nil, nil, nil
		for range s.Labels {
			fill, ring := canvas.NewRectangle(color.Transparent), canvas.NewRectangle(color.Transparent)
			fill.CornerRadius, ring.CornerRadius = 6, 9
			fill.StrokeWidth, ring.StrokeWidth = 1.5, 2
			r.fills, r.rings = append(r.fills, fill), append(r.rings, ring)
			r.objects = append(r.objects, ring, fill)
		}
		r.objects = append(r.objects, r.name)
	}
	for i, l := range s.Labels {
		c := label.RGB(l.Color)
		edge, _ := label.Outline(c, ground)
		r.fills[i].FillColor, r.fills[i].StrokeColor = c, edge
		r.rings[i].FillColor, r.rings[i].StrokeColor = color.Transparent, color.Transparent
		switch {
		case l.Name == s.Selected && s.focused:
			r.rings[i].StrokeColor = th.Color(fynetheme.ColorNamePrimary, variant)
		case l.Name == s.Selected:
			r.rings[i].StrokeColor = th.Color(fynetheme.ColorNameForeground, variant)
		case i == s.over:
			r.rings[i].StrokeColor = th.Color(theme.Track, variant)
		}
		r.fills[i].Refresh()
		r.rings[i].Refresh()
	}
	r.name.Text, r.name.Color = words.Label(s.Selected), th.Color(fynetheme.ColorNameForeground, variant)
	r.name.TextSize = th.Size(fynetheme.SizeNameText)
	r.name.Refresh()
	r.Layout(s.Size())
}
