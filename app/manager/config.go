package manager

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme/label"
)

// config is the sheet of one qube's settings: pages at the left, the one in
// sight at the right. What is changed there holds at once, so that there is
// nothing to apply and nothing to lose.
type config struct {
	*host
	sheet  *sheet
	pages  []section
	chips  []*control.Chip
	at     int
	middle *fyne.Container
	close  *control.Button
}

// Measures of the sheet.
const (
	configWide = 780
	configHigh = 540
	configSlim = 120 // what of the window's height stays visible around it
)

// settings opens the settings of the selected qube.
func (m *Manager) settings() {
	if chosen := m.table.chosen(); m.able(chosen).settings {
		m.configure(chosen[0])
	}
}

// OpenSettings opens the settings of the qube whose name somebody typed, once
// the daemon has told which qubes there are.
func (m *Manager) OpenSettings(text string) {
	m.wanted = nil
	if m.state.Link != dom0.Connected {
		m.wanted = func() { m.OpenSettings(text) }
		return
	}
	name, err := dom0.ParseName(text)
	q, ok := m.state.ByName(name)
	why := func(text string) error {
		return &dom0.Error{Op: "settings", Subject: string(name), Reason: text}
	}
	switch {
	case err != nil:
		m.notices.add(notice{key: "settings", title: words.CouldNot("settings", string(dom0.CleanLine(text))), reason: words.Reason("", dom0.NameFault(text))})
	case !ok:
		m.failed("settings", name, why(words.T("There is no qube of that name.")), nil)
	case !hasSettings(&q):
		m.failed("settings", name, why(words.T("It has none that can be changed here.")), nil)
	default:
		m.configure(q)
	}
}

// configure opens the sheet for q, in place of any other.
func (m *Manager) configure(q dom0.Qube) {
	for m.sheet != nil {
		m.closeSheet()
	}
	c := &config{}
	c.host = &host{
		manager: m, subject: q, escape: m.closeSheet, redraw: func() { c.draw() }, trouble: newTrouble(fynetheme.ColorNameOverlayBackground, m.closeSheet),
		isOpen: func() bool { return m.config == c },
		inside: func() section { return c.pages[c.at] },
		room:   c.room,
	}
	c.pages = []section{
		newForm(c.host, words.T("Basic"), "label", "template", "netvm", "autostart", "include_in_backups", "default_user", "default_dispvm", "template_for_dispvms"),
		newApps(c.host),
		newForm(c.host, words.T("Network"), "netvm", "provides_network", "visible_ip", "visible_gateway", "mac"),
		newFirewall(c.host),
		newDevices(c.host),
		newVolumes(c.host),
		newForm(c.host, words.T("Memory and CPU"), "memory", "maxmem", "vcpus"),
		newForm(c.host, words.T("Isolation and start"), "engine", "virt_mode", "kernel", "kernelopts", "qrexec_timeout", "shutdown_timeout", "debug"),
		newFeatures(c.host),
		newPermissions(c.host),
		newSettings(c.host),
	}
	side := container.New(layout.NewCustomPaddedVBoxLayout(6))
	for i, p := range c.pages {
		word := p.title()
		if i == len(c.pages)-1 {
			word = words.T("All settings")
		}
		chip := control.NewChip(word, func() { c.turn(i) })
		chip.OnEscape = m.closeSheet
		c.chips = append(c.chips, chip)
		side.Add(chip)
	}
	c.middle = container.NewStack()
	c.close = control.NewButton(words.T("Close"), nil, m.closeSheet)
	c.close.Importance = widget.HighImportance
	c.close.OnEscape = m.closeSheet
	tag := canvas.NewImageFromResource(control.LabelIcon(label.ShapeOf(q.Class), q.Label.Color))
	tag.SetMinSize(fyne.NewSquareSize(20))
	title := heading(cut(words.T("Settings of %s", q.Name), configWide-120, m.textSize()+2, fyne.TextStyle{Bold: true}))
	top := control.Border(nil, widget.NewSeparator(), container.NewCenter(tag), nil, title)
	below := control.Border(widget.NewSeparator(), nil, nil, nil,
		container.New(layout.NewCustomPaddedLayout(8, 0, 0, 0), container.NewHBox(layout.NewSpacer(), c.close)))
	body := control.Border(nil, nil, container.New(layout.NewCustomPaddedLayout(12, 0, 0, 16), side), nil,
		container.New(layout.NewCustomPaddedLayout(8, 8, 0, 0), c.middle))
	m.openSheet(container.New(&tall{over: m.canvas}, control.Border(top, below, nil, nil, body)), configWide)
	m.config, c.sheet = c, m.sheet
	c.sheet.stays = true
	c.draw()
	m.canvas.Focus(c.chips[0])
}

// tall asks for as much height as the sheet may have.
type tall struct{ over fyne.Canvas }

// MinSize implements fyne.Layout.
func (t *tall) MinSize(o []fyne.CanvasObject) fyne.Size {
	size := o[0].MinSize()
	return fyne.NewSize(size.Width, max(size.Height, min(configHigh, t.over.Size().Height-configSlim)))
}

// Layout implements fyne.Layout.
func (t *tall) Layout(o []fyne.CanvasObject, size fyne.Size) {
	control.Place(o[0], 0, 0, size.Width, size.Height)
}

func (c *config) room() float32 {
	if w := c.middle.Size().Width; w > 0 {
		return w
	}
	return configWide / 2
}

// turn shows page i.
func (c *config) turn(i int) {
	c.pages[c.at].leave()
	c.at = i
	c.draw()
}

func (c *config) draw() {
	c.asked++
	for i, chip := range c.chips {
		chip.Set(-1, i == c.at)
	}
	page := c.pages[c.at]
	c.middle.RemoveAll()
	c.middle.Add(page.body())
	c.middle.Add(c.trouble.box)
	c.trouble.clear()
	c.middle.Refresh()
	page.show(c.subject, true)
}

// follow takes a snapshot: the qube may be in another state, or gone.
func (c *config) follow(s *dom0.Snapshot) {
	next, ok := s.ByID(c.subject.ID)
	if !ok {
		if s.Link == dom0.Connected {
			for c.isOpen() {
				c.manager.closeSheet()
			}
		}
		return
	}
	if page, ok := c.pages[c.at].(*devices); ok {
		page.draw(false)
	}
	last := c.subject
	c.subject = next
	if last.State != next.State || last.Disk != next.Disk || last.Template != next.Template || last.NetVM != next.NetVM || last.Label != next.Label {
		c.pages[c.at].show(next, false)
	}
}
