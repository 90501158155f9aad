package manager

import (
	"fmt"
	"image/color"
	"slices"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/theme"
	"cubicle/theme/label"
)

// lineState is all that a line of the table shows.
type lineState struct {
	row      row
	y, width float32
	selected bool
	cursor   bool
	over     bool
	spark    []float64
}

// line is the canvas objects of one row in sight.
type line struct {
	table *table
	drawn lineState
	fresh bool // nothing drawn yet

	ground  *canvas.Rectangle
	edge    *canvas.Rectangle // below the row
	tag     *canvas.Image     // label
	lamp    *canvas.Image     // state
	cells   []*canvas.Text
	badge   *canvas.Rectangle
	track   *canvas.Rectangle
	fill    *canvas.Rectangle
	step    *canvas.Text
	spark   [sparkBars]*canvas.Rectangle
	places  []place
	objects []fyne.CanvasObject
}

func newLine(t *table) *line {
	l := &line{table: t, fresh: true}
	l.ground = canvas.NewRectangle(color.Transparent)
	l.ground.CornerRadius = 6
	l.edge = control.NewRectangle()
	l.tag, l.lamp = &canvas.Image{}, &canvas.Image{}
	l.badge = canvas.NewRectangle(color.Transparent)
	l.badge.CornerRadius = 9
	l.badge.StrokeWidth = 1
	l.track, l.fill = canvas.NewRectangle(color.Transparent), canvas.NewRectangle(color.Transparent)
	l.track.CornerRadius, l.fill.CornerRadius = 3, 3
	l.step = canvas.NewText("", color.Transparent)
	l.objects = append(l.objects, l.edge, l.ground, l.tag, l.lamp, l.badge, l.track, l.fill, l.step)
	for i := range l.spark {
		l.spark[i] = control.NewRectangle()
		l.objects = append(l.objects, l.spark[i])
	}
	for _, c := range t.cols {
		text := canvas.NewText("", color.Transparent)
		text.TextStyle.Bold = c.key == colName
		l.cells = append(l.cells, text)
		l.objects = append(l.objects, text)
	}
	return l
}

// set draws the difference between what is drawn and s.
func (l *line) set(p control.Painter, s lineState) {
	moved := l.fresh || s.y != l.drawn.y || s.width != l.drawn.width || !slices.Equal(l.places, l.table.places)
	same := !moved && s.row == l.drawn.row && s.selected == l.drawn.selected && s.cursor == l.drawn.cursor &&
		s.over == l.drawn.over && slices.Equal(s.spark, l.drawn.spark)
	if same {
		return
	}
	s.spark = slices.Clone(s.spark)
	l.drawn, l.fresh = s, false
	l.places = slices.Clone(l.table.places)

	if s.row.heading != "" {
		l.drawHeading(p, s)
		return
	}
	l.drawGround(p, s)
	for _, o := range []fyne.CanvasObject{l.tag, l.lamp} {
		control.Show(o, true)
	}
	q := &s.row.qube
	face := faceOf(q)
	working := s.row.job.ID != ""
	if working && q.State == dom0.Halted && q.Problem == "" {
		face = stateFace{jobDoing(s.row.job.Kind), halfShape, fynetheme.ColorNameWarning}
	}
	for i, c := range l.table.cols {
		l.drawCell(p, i, c, s, face, working)
	}
	l.drawProgress(p, s, working)
}

func (l *line) drawGround(p control.Painter, s lineState) {
	fill, stroke, width := color.Color(color.Transparent), color.Color(color.Transparent), float32(0)
	switch {
	case s.selected:
		fill = p.Ink(theme.Row)
	case s.over:
		fill = p.Ink(theme.RowHover)
	}
	if s.cursor {
		stroke, width = p.Ink(fynetheme.ColorNamePrimary), 1.5
	}
	control.SetRect(l.ground, fill, stroke, width)
	control.Place(l.ground, 4, s.y+1, s.width-8, rowHeight-3)
	control.SetRect(l.edge, p.Ink(fynetheme.ColorNameSeparator), color.Transparent, 0)
	control.Place(l.edge, margin, s.y+rowHeight-1, s.width-2*margin, 1)
}

// drawHeading draws the row that begins a family.
func (l *line) drawHeading(p control.Painter, s lineState) {
	for _, o := range l.objects {
		control.Show(o, o == l.ground || o == l.edge || o == l.cells[0])
	}
	s.selected, s.over, s.cursor = false, false, false
	l.drawGround(p, s)
	textSize := p.Size(fynetheme.SizeNameCaptionText)
	text := cut(s.row.heading, s.width-2*margin, textSize, l.cells[0].TextStyle)
	control.SetText(l.cells[0], text, p.Ink(theme.Muted), textSize)
	measured := fyne.MeasureText(text, textSize, l.cells[0].TextStyle)
	control.Place(l.cells[0], margin, s.y+rowHeight-measured.Height-6, measured.Width, measured.Height)
}

func (l *line) drawCell(p control.Painter, i int, c column, s lineState, face stateFace, working bool) {
	q := &s.row.qube
	at, cell := l.places[i], l.cells[i]
	textSize := p.Size(fynetheme.SizeNameText)
	ink := p.Ink(fynetheme.ColorNameForeground)
	text, x, width := c.text(q), at.x, at.width
	shown := at.width > 0
	switch c.key {
	case colName:
		control.SetImage(l.tag, control.LabelIcon(label.ShapeOf(q.Class), q.Label.Color))
		control.Place(l.tag, at.x, s.y+(rowHeight-iconSize)/2, iconSize, iconSize)
		x, width = x+iconSize+iconGap, width-iconSize-iconGap
	case colState:
		text = face.word
		control.SetImage(l.lamp, lampIcon(face, p))
		control.Place(l.lamp, at.x, s.y+(rowHeight-iconSize)/2, iconSize, iconSize)
		x, width = x+iconSize+iconGap-2, width-iconSize-iconGap+2
		if face.icon == ringShape {
			ink = p.Ink(theme.Muted)
		}
		if face.ink == fynetheme.ColorNameError {
			ink = p.Ink(fynetheme.ColorNameError)
		}
	case colTemplate, colNetwork:
		shown = shown && !working
		if q.NetVM == "" && c.key == colNetwork || q.Class == dom0.TemplateVM && c.key == colTemplate {
			ink = p.Ink(theme.Muted)
		}
		if (q.Outdated || q.Updates) && c.key == colTemplate {
			ink = p.Ink(fynetheme.ColorNameWarning)
		}
	case colCPU, colMemory, colDisk:
		shown = shown && !working
		if text == "–" {
			ink = p.Ink(theme.Muted)
		}
		if c.key == colCPU {
			l.drawSpark(p, s, at, shown)
		}
	case colIsolation:
		textSize = p.Size(fynetheme.SizeNameCaptionText)
		ink = p.Ink(isolationInk(q.Isolation))
		x, width = x+badgePad, width-2*badgePad
	}
	text = cut(text, width, textSize, cell.TextStyle)
	control.SetText(cell, text, ink, textSize)
	measured := fyne.MeasureText(text, textSize, cell.TextStyle)
	if c.figure {
		x = at.x + at.width - measured.Width
	}
	control.Place(cell, x, s.y+(rowHeight-measured.Height)/2, measured.Width, measured.Height)
	control.Show(cell, shown && text != "")
	if c.key == colIsolation {
		control.SetRect(l.badge, color.Transparent, ink, 1)
		control.Place(l.badge, at.x, s.y+(rowHeight-20)/2, measured.Width+2*badgePad, 20)
		control.Show(l.badge, shown && text != "")
	}
}

// drawSpark draws the last CPU figures; a full bar is one core.
func (l *line) drawSpark(p control.Painter, s lineState, at place, shown bool) {
	const high = 16
	up := shown && isUp(&s.row.qube) && len(s.spark) > 0
	ink := p.Ink(fynetheme.ColorNamePrimary)
	right := at.x + sparkWide
	for i, bar := range l.spark {
		k := len(s.spark) - sparkBars + i
		value := 0.0
		if k >= 0 {
			value = min(s.spark[k], 100) / 100
		}
		h := max(1, float32(value)*high)
		control.SetRect(bar, ink, color.Transparent, 0)
		control.Place(bar, right-float32(sparkBars-i)*(sparkBar+1), s.y+(rowHeight+high)/2-h, sparkBar, h)
		control.Show(bar, up)
	}
}

// drawProgress puts the job's bar and step where the figures were.
func (l *line) drawProgress(p control.Painter, s lineState, working bool) {
	control.Show(l.track, working)
	control.Show(l.fill, working)
	control.Show(l.step, working)
	if !working {
		return
	}
	const wide, high = 120, 6
	left, right := l.places[1].x+l.places[1].width+gap, s.width-margin
	if last := l.places[len(l.places)-1]; last.width > 0 {
		right = last.x - gap
	}
	y := s.y + (rowHeight-high)/2
	control.SetRect(l.track, p.Ink(theme.Track), color.Transparent, 0)
	control.Place(l.track, left, y, wide, high)
	control.SetRect(l.fill, p.Ink(fynetheme.ColorNamePrimary), color.Transparent, 0)
	control.Place(l.fill, left, y, max(high, wide*float32(s.row.job.Progress)), high)
	textSize := p.Size(fynetheme.SizeNameText)
	text := jobStep(s.row.job.Text)
	if text == "" {
		text = fmt.Sprintf("%.0f %%", s.row.job.Progress*100)
	}
	text = cut(text, right-left-wide-12, textSize, fyne.TextStyle{})
	control.SetText(l.step, text, p.Ink(theme.Muted), textSize)
	measured := fyne.MeasureText(text, textSize, fyne.TextStyle{})
	control.Place(l.step, left+wide+12, s.y+(rowHeight-measured.Height)/2, measured.Width, measured.Height)
}

// isolationInk tells a strong isolation from a weaker and a weak one.
func isolationInk(isolation string) fyne.ThemeColorName {
	switch isolation {
	case "Xen", "KVM":
		return theme.Strong
	case "gVisor", "emulation":
		return theme.Weak
	}
	return theme.Caution
}

func lampIcon(f stateFace, p control.Painter) fyne.Resource {
	ink := label.Hex(p.Ink(f.ink).(color.NRGBA))
	svg := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24">`+f.icon+`</svg>`, ink)
	return fyne.NewStaticResource(fmt.Sprintf("state-%s-%s.svg", f.word, ink[1:]), []byte(svg))
}
