package manager

import (
	"context"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme"
	"cubicle/theme/label"
)

// pane is the inside of the selected qube, beside the table: a section at a
// time, asked for when it is looked at.
type pane struct {
	*host
	box *fyne.Container // hidden while the pane is closed

	tag      *canvas.Image
	name     *canvas.Text
	chips    []*control.Chip
	flow     *flow
	sections []section
	at       int // the section in sight
	// Where the sections are that a failure leads to.
	calls, console, log int
	live                bool // the daemon was there when the pane was shown last
	middle              *fyne.Container
	nothing             *widget.Label
}

// host is where sections are shown: the pane, or the sheet of settings.
type host struct {
	manager *Manager
	trouble *trouble
	subject dom0.Qube // zero ID: none
	asked   int       // counts questions: the answer to an older one is no news

	isOpen func() bool    // whether people see it
	escape func()         // where Esc leads
	redraw func()         // shows the section in sight from the start
	inside func() section // the section in sight
	room   func() float32 // how wide a section's content may be
}

// section is one part of the pane. All methods run on the UI goroutine.
type section interface {
	title() string
	body() fyne.CanvasObject
	// show asks for what there is to show about q; fresh is false when it was
	// shown before and only its state changed.
	show(q dom0.Qube, fresh bool)
	// leave ends what show began: another qube or section is looked at.
	leave()
}

func newPane(m *Manager) *pane {
	p := &pane{tag: &canvas.Image{}, name: canvas.NewText("", nil)}
	p.host = &host{
		manager: m, escape: m.Focus, redraw: p.draw, room: p.room, trouble: newTrouble(theme.Panel, m.Focus),
		isOpen: func() bool { return p.box.Visible() },
		inside: func() section { return p.sections[p.at] },
	}
	p.tag.SetMinSize(fyne.NewSquareSize(20))
	p.name.TextStyle.Bold = true
	p.sections = []section{newApps(p.host), newDevices(p.host), newVolumes(p.host), newCalls(p.host), newConsole(p.host), newMessages(p.host), newNotes(p.host), newSettings(p.host)}
	p.calls, p.console, p.log = 3, 4, 5
	p.flow = &flow{gap: 4}
	chips := container.New(p.flow)
	for i, s := range p.sections {
		c := control.NewChip(s.title(), func() { p.turn(i) })
		c.OnEscape = m.Focus
		p.chips = append(p.chips, c)
		chips.Add(c)
	}
	closer := control.NewButton("", control.Icon("close"), func() { m.openPane(false) })
	closer.Importance = widget.LowImportance
	closer.OnEscape = m.Focus
	p.nothing = widget.NewLabel(words.T("Select one qube to see what is inside."))
	p.nothing.Wrapping = fyne.TextWrapWord
	p.middle = container.NewStack()
	head := control.Border(nil, nil,
		container.New(layout.NewCustomPaddedLayout(0, 0, 4, 4), container.NewHBox(container.NewCenter(p.tag), container.NewCenter(p.name))), closer)
	inside := control.Border(container.NewVBox(head, chips), nil, nil, nil, p.middle)
	p.box = container.NewStack(control.NewGround(theme.Panel, "", 0),
		control.Border(nil, nil, widget.NewSeparator(), nil,
			container.New(layout.NewCustomPaddedLayout(8, 8, 12, 12), inside)))
	p.box.Hide()
	return p
}

// turn shows section i.
func (p *pane) turn(i int) {
	p.sections[p.at].leave()
	p.at = i
	p.manager.keep()
	p.draw()
}

// show follows the selection.
func (p *pane) show(chosen []dom0.Qube) {
	if !p.isOpen() {
		return
	}
	var next dom0.Qube
	if len(chosen) == 1 && chosen[0].Class != dom0.AdminVM {
		next = chosen[0]
	}
	if d, ok := p.sections[p.at].(*devices); ok && next.ID != "" && next.ID == p.subject.ID {
		d.draw(false)
	}
	last, back := p.subject, !p.live && p.manager.state.Link == dom0.Connected
	p.subject, p.live = next, p.manager.state.Link == dom0.Connected
	p.showName()
	switch {
	case next.ID != last.ID:
		p.sections[p.at].leave()
		p.draw()
	case next.ID != "" && back && p.trouble.box.Visible():
		p.draw()
	case next.ID != "" && (back || next.State != last.State || next.Disk != last.Disk):
		p.sections[p.at].show(next, false)
	}
}

func (p *pane) showName() {
	control.Show(p.tag, p.subject.ID != "")
	text := words.T("Details")
	if p.subject.ID != "" {
		control.SetImage(p.tag, control.LabelIcon(label.ShapeOf(p.subject.Class), p.subject.Label.Color))
		text = cut(string(p.subject.Name), p.room()-80, p.manager.textSize()+1, p.name.TextStyle)
	}
	control.SetText(p.name, text, p.manager.ink(fynetheme.ColorNameForeground), p.manager.textSize()+1)
}

// draw puts the section in sight and has it ask.
func (p *pane) draw() {
	p.asked++
	p.showName()
	for i, c := range p.chips {
		c.Set(-1, i == p.at)
		control.Show(c, p.subject.ID != "")
	}
	p.middle.RemoveAll()
	if p.subject.ID == "" {
		p.middle.Add(container.NewVBox(p.nothing))
		p.box.Refresh()
		return
	}
	s := p.sections[p.at]
	p.middle.Add(s.body())
	p.middle.Add(p.trouble.box)
	p.trouble.clear()
	p.box.Refresh() // chips came or went
	s.show(p.subject, true)
}

// room is how wide the section's content may be.
func (p *pane) room() float32 {
	if w := p.middle.Size().Width; w > 0 {
		return w
	}
	return paneMin - panePad
}

// ask puts a question about the subject to the daemon; the answer is handed
// back on the UI goroutine, unless people look at something else by then.
func (h *host) ask(question func(context.Context) error, answer func()) {
	h.asked++
	ticket := h.asked
	h.manager.inquire(question, func(err error) {
		if ticket != h.asked || !h.isOpen() {
			return
		}
		if err != nil {
			h.trouble.show(reason(err), h.redraw)
			return
		}
		h.trouble.clear()
		answer()
	})
}

// act runs an action on the subject that ends at once; a refusal becomes a
// notice, and success shows the section anew.
func (h *host) act(kind string, action func(context.Context, dom0.QubeID) error) {
	q, m := h.subject, h.manager
	m.notices.drop(noticeKey(kind, q.Name))
	m.inquire(func(ctx context.Context) error { return action(ctx, q.ID) }, func(err error) {
		if err != nil {
			m.failed(kind, q.Name, err, nil)
			return
		}
		h.again(q.ID)
	})
}

// again shows the section in sight anew, if it is still about that qube.
func (h *host) again(id dom0.QubeID) {
	if h.subject.ID == id && h.isOpen() {
		h.inside().show(h.subject, false)
	}
}

// inquire asks the daemon off the UI goroutine and hands the answer back.
func (m *Manager) inquire(question func(context.Context) error, answer func(error)) {
	m.request(func(ctx context.Context) (dom0.JobID, error) { return "", question(ctx) },
		func(_ dom0.JobID, err error) { answer(err) })
}

// openPane opens or closes the pane.
func (m *Manager) openPane(open bool) {
	if open == m.pane.isOpen() {
		return
	}
	control.Show(m.pane.box, open)
	m.details.toggled(open)
	m.keep()
	m.rearrange()
	if !open {
		m.pane.sections[m.pane.at].leave()
		m.pane.subject = dom0.Qube{}
		m.Focus()
		return
	}
	m.pane.show(m.table.chosen())
	m.pane.draw()
}

// lookInto selects a qube and opens the pane on a section of it.
func (m *Manager) lookInto(id dom0.QubeID, section int) {
	if m.table.picks.index(id) < 0 {
		m.filter.SetText("")
		m.pickGroup(groupAll)
	}
	m.table.picks.pick(m.table.picks.index(id), false, false)
	m.table.selected(true)
	m.openPane(true)
	m.pane.turn(section)
}

// OpenCalls shows the last calls of the qube of that name, once the daemon has
// told which qubes there are. One that is gone has none.
func (m *Manager) OpenCalls(text string) {
	m.wanted = nil
	if m.state.Link != dom0.Connected {
		m.wanted = func() { m.OpenCalls(text) }
		return
	}
	if name, err := dom0.ParseName(text); err == nil {
		if q, ok := m.state.ByName(name); ok && q.Class != dom0.AdminVM {
			m.lookInto(q.ID, m.pane.calls)
		}
	}
}

// trouble says in a section why it cannot be shown, with the way to try again.
type trouble struct {
	box   *fyne.Container
	text  *widget.Label
	again func()
}

func newTrouble(ground fyne.ThemeColorName, escape func()) *trouble {
	t := &trouble{text: widget.NewLabel("")}
	t.text.Wrapping = fyne.TextWrapWord
	t.text.Importance = widget.DangerImportance
	retry := control.NewButton(words.T("Retry"), nil, func() {
		t.clear()
		t.again()
	})
	retry.OnEscape = escape
	t.box = container.NewStack(control.NewGround(ground, "", 0), container.NewVBox(t.text, container.NewHBox(retry)))
	t.box.Hide()
	return t
}

func (t *trouble) show(why string, again func()) {
	t.again = again
	setLabel(t.text, why)
	control.Show(t.box, true)
}

func (t *trouble) clear() { control.Show(t.box, false) }

// Measures of the pane.
const (
	paneMin = 320
	paneMax = 480
	panePad = 32 // what of its width is no content
)

// beside sets the pane right of the table, with a third of the width.
type beside struct{ pane *pane }

// MinSize implements fyne.Layout.
func (*beside) MinSize(o []fyne.CanvasObject) fyne.Size {
	size := o[0].MinSize()
	if o[1].Visible() {
		size.Width += paneMin
		size.Height = max(size.Height, o[1].MinSize().Height)
	}
	return size
}

// Layout implements fyne.Layout.
func (b *beside) Layout(o []fyne.CanvasObject, size fyne.Size) {
	wide := float32(0)
	if o[1].Visible() {
		wide = min(max(size.Width*0.36, paneMin), paneMax)
		b.pane.flow.wide = wide - panePad
		control.Place(o[1], size.Width-wide, 0, wide, size.Height)
	}
	control.Place(o[0], 0, 0, size.Width-wide, size.Height)
}

// flow sets objects in lines, as words are set.
type flow struct {
	gap  float32
	wide float32 // what the lines may have
}

func (f *flow) each(o []fyne.CanvasObject, width float32, visit func(fyne.CanvasObject, fyne.Position, fyne.Size)) (height float32) {
	x, y, high := float32(0), float32(0), float32(0)
	for _, one := range o {
		if !one.Visible() {
			continue
		}
		size := one.MinSize()
		if x > 0 && x+size.Width > width {
			x, y, high = 0, y+high+f.gap, 0
		}
		if visit != nil {
			visit(one, fyne.NewPos(x, y), size)
		}
		x += size.Width + f.gap
		high = max(high, size.Height)
	}
	return y + high
}

// MinSize implements fyne.Layout.
func (f *flow) MinSize(o []fyne.CanvasObject) fyne.Size {
	widest := float32(0)
	for _, one := range o {
		if one.Visible() {
			widest = max(widest, one.MinSize().Width)
		}
	}
	return fyne.NewSize(widest, f.each(o, max(f.wide, paneMin-panePad), nil))
}

// Layout implements fyne.Layout.
func (f *flow) Layout(o []fyne.CanvasObject, _ fyne.Size) {
	f.each(o, max(f.wide, paneMin-panePad), func(one fyne.CanvasObject, at fyne.Position, min fyne.Size) {
		one.Move(at)
		one.Resize(min)
	})
}
