package manager

import (
	"strings"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/app/control"
)

// tip explains what is under the pointer when it rests there. It lies above
// everything, and takes neither clicks nor the focus.
type tip struct {
	layer *fyne.Container
	later func(time.Duration, func()) func()
	stop  func()
	text  string
	at    fyne.Position
}

const (
	tipDelay = 500 * time.Millisecond
	tipWide  = 380
	tipPad   = 8
)

func newTip(later func(time.Duration, func()) func()) *tip {
	return &tip{layer: container.NewWithoutLayout(), later: later}
}

// want shows text beside at after a rest; an empty text takes the tip away.
func (t *tip) want(text string, at fyne.Position) {
	t.at = at
	if text == t.text {
		return
	}
	t.hide()
	t.text = text
	if text != "" {
		t.stop = t.later(tipDelay, t.draw)
	}
}

func (t *tip) hide() {
	if t.stop != nil {
		t.stop()
		t.stop = nil
	}
	t.text = ""
	if len(t.layer.Objects) > 0 {
		t.layer.RemoveAll()
	}
}

func (t *tip) draw() {
	if t.text == "" {
		return
	}
	p := control.NewPainter()
	textSize := p.Size(fynetheme.SizeNameText) - 1
	back := canvas.NewRectangle(p.Ink(fynetheme.ColorNameMenuBackground))
	back.CornerRadius = 6
	back.StrokeWidth = 1
	back.StrokeColor = p.Ink(fynetheme.ColorNameInputBorder)
	objects := []fyne.CanvasObject{back}
	y, widest := float32(tipPad), float32(0)
	for _, one := range wrap(t.text, tipWide-2*tipPad, textSize) {
		text := canvas.NewText(one, p.Ink(fynetheme.ColorNameForeground))
		text.TextSize = textSize
		min := text.MinSize()
		text.Resize(min)
		text.Move(fyne.NewPos(tipPad, y))
		y += min.Height
		widest = max(widest, min.Width)
		objects = append(objects, text)
	}
	size := fyne.NewSize(widest+2*tipPad, y+tipPad)
	room := t.layer.Size()
	x, top := min(t.at.X+12, room.Width-size.Width-8), t.at.Y+20
	if top+size.Height > room.Height-8 {
		top = t.at.Y - size.Height - 8
	}
	origin := fyne.NewPos(max(x, 8), max(top, 8))
	for _, o := range objects {
		o.Move(o.Position().Add(origin))
	}
	back.Resize(size)
	t.layer.Objects = objects
	t.layer.Refresh()
}

// wrap breaks text into lines that fit.
func wrap(text string, width, textSize float32) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		longer := strings.TrimSpace(line + " " + word)
		if line != "" && fyne.MeasureText(longer, textSize, fyne.TextStyle{}).Width > width {
			lines = append(lines, line)
			longer = word
		}
		line = cut(longer, width, textSize, fyne.TextStyle{})
	}
	return append(lines, line)
}
