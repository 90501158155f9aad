package manager

import (
	"strings"
	"time"

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

// details is the strip below the table: what is selected, in words.
type details struct {
	manager *Manager
	box     fyne.CanvasObject

	tag    *canvas.Image
	name   *widget.Label
	facts  *widget.Label
	line   *fyne.Container // name and facts
	sign   *canvas.Image
	remark *widget.Label
	bar    *control.Bar
	step   *widget.Label
	stop   *control.Button
	work   *fyne.Container
	toggle *control.Button // opens the pane
	job    dom0.JobID
}

func newDetails(m *Manager) *details {
	d := &details{manager: m, tag: &canvas.Image{}, sign: &canvas.Image{}}
	d.tag.SetMinSize(fyne.NewSquareSize(20))
	d.sign.SetMinSize(fyne.NewSquareSize(16))
	d.name = widget.NewLabel("")
	d.name.TextStyle.Bold = true
	d.facts = widget.NewLabel("")
	d.facts.Truncation = fyne.TextTruncateEllipsis
	d.remark = widget.NewLabel("")
	d.remark.Truncation = fyne.TextTruncateEllipsis
	d.bar = control.NewBar()
	d.step = widget.NewLabel("")
	d.stop = control.NewButton(words.T("Cancel"), nil, func() { m.cancelJob(d.job) })
	d.stop.OnEscape = m.Focus
	d.work = container.NewHBox(d.step, container.NewCenter(d.bar), d.stop)
	d.work.Hide()
	d.toggle = control.NewButton(words.T("Details"), control.Icon("right"), func() { m.openPane(!m.pane.isOpen()) })
	d.toggle.Importance = widget.LowImportance
	d.toggle.OnEscape = m.Focus
	first := control.Border(nil, nil, container.NewHBox(container.NewCenter(d.tag), d.name), nil, d.facts)
	d.line = first
	second := control.Border(nil, nil, container.New(layout.NewCustomPaddedLayout(0, 0, 2, 2), container.NewCenter(d.sign)), nil, d.remark)
	lines := container.New(layout.NewCustomPaddedVBoxLayout(-8), first, second)
	d.box = container.NewStack(control.NewGround(theme.Panel, "", 0),
		control.Border(control.NewEdge(), nil, nil, nil,
			container.New(layout.NewCustomPaddedLayout(4, 4, 16, 12), control.Border(nil, nil, nil, container.NewHBox(container.NewCenter(d.work), container.NewCenter(d.toggle)), lines))))
	return d
}

// show describes the selection, or all qubes when there is none.
func (d *details) show(chosen []dom0.Qube) {
	control.Show(d.tag, len(chosen) < 2)
	switch len(chosen) {
	case 0:
		control.SetImage(d.tag, control.Picture("qube-manager"))
		d.set("", d.summary())
		d.note(d.remarkOnAll())
		d.working(dom0.Job{})
	case 1:
		q := &chosen[0]
		control.SetImage(d.tag, control.LabelIcon(label.ShapeOf(q.Class), q.Label.Color))
		d.set(string(q.Name), d.describe(q))
		job := jobOn(d.manager.state, q)
		if job.ID != "" {
			d.note("", "") // the job takes its room
		} else {
			d.note(remarkOn(q))
		}
		d.working(job)
	default:
		up := 0
		for i := range chosen {
			if isUp(&chosen[i]) {
				up++
			}
		}
		d.set(words.N(len(chosen), "%d qube selected", "%d qubes selected"), words.T("%d running · actions apply to all of them", up))
		d.note("", "")
		d.working(dom0.Job{})
	}
}

// toggled tells whether the pane is open.
func (d *details) toggled(open bool) {
	icon := "right"
	if open {
		icon = "left"
	}
	d.toggle.SetIcon(control.Icon(icon))
}

func (d *details) set(name, facts string) {
	control.Show(d.name, name != "")
	if d.name.Text != name {
		d.name.SetText(name)
		d.line.Refresh() // what stands beside it moves
	}
	setLabel(d.facts, facts)
}

// note shows a remark: kind is "problem", "isolation" or empty.
func (d *details) note(kind, text string) {
	ink, icon := theme.Muted, "info"
	importance := widget.MediumImportance
	switch kind {
	case "problem":
		ink, icon, importance = fynetheme.ColorNameError, "warning", widget.DangerImportance
	case "isolation":
		ink, icon = theme.Weak, "shield"
	}
	control.Show(d.sign, text != "")
	control.SetImage(d.sign, control.ColorIcon(icon, ink))
	if d.remark.Importance != importance {
		d.remark.Importance = importance
		d.remark.Refresh()
	}
	setLabel(d.remark, text)
}

func (d *details) working(j dom0.Job) {
	d.job = j.ID
	control.Show(d.work, j.ID != "")
	if j.ID == "" {
		return
	}
	setLabel(d.step, jobText(j))
	d.bar.Set(j.Progress)
}

// setLabel redraws only on a change.
func setLabel(l *widget.Label, text string) {
	if l.Text != text {
		l.SetText(text)
	}
}

func (d *details) summary() string {
	s := d.manager.state
	if s.Link == dom0.Connecting {
		return words.T("Connecting to qubesd …")
	}
	up, used := 0, uint64(0)
	for i := range s.Qubes {
		if isUp(&s.Qubes[i]) {
			up++
			used += s.Qubes[i].MemoryUsed
		}
	}
	text := words.N(len(s.Qubes), "%d qube", "%d qubes") + " · " + words.T("%d running", up)
	if used > 0 {
		text += " · " + words.T("%s of memory in use", words.Memory(used))
	}
	if disk := s.Disk; disk.Size > 0 {
		text += " · " + words.T("%s of %s disk in use", size(disk.Used), size(disk.Size))
	}
	return text
}

// remarkOnAll says that the disk is nearly full, else it names the default
// engine's weakness, plainly.
func (d *details) remarkOnAll() (kind, text string) {
	s := d.manager.state
	if s.Disk.Scarce() {
		return "problem", words.T("Only %s of disk are left: remove what is not needed, or qubes will fail to start.", size(s.Disk.Size-min(s.Disk.Used, s.Disk.Size)))
	}
	for _, e := range s.Engines {
		if e.Name == s.DefaultEngine && e.Weakness != "" {
			return "isolation", words.T("Isolation by %s: %s", e.Isolation, words.Known(e.Weakness))
		}
	}
	return "", ""
}

func (d *details) describe(q *dom0.Qube) string {
	kind := classWord(q.Class)
	if q.DisposableTemplate {
		kind = words.T("Disposable template")
	}
	if q.Template != "" {
		kind = words.T("%s on %s", kind, q.Template)
	}
	facts := []string{kind}
	if isUp(q) && !q.Started.IsZero() {
		facts = append(facts, words.T("started %s", since(q.Started, d.manager.opts.Now())))
	} else {
		facts = append(facts, faceOf(q).word)
	}
	if n := d.manager.windows[q.Name]; isUp(q) && d.manager.windows != nil {
		facts = append(facts, words.N(n, "%d window", "%d windows"))
	}
	if q.Class != dom0.AdminVM && q.Class != dom0.DispVM {
		facts = append(facts, words.T("last backup: %s", backedUp(q.LastBackup, d.manager.opts.Now())))
	}
	if q.VCPUs > 0 {
		facts = append(facts, words.N(int(q.VCPUs), "%d vCPU", "%d vCPUs"))
	}
	if q.MemoryMax > 0 {
		facts = append(facts, words.T("%s memory", words.Memory(uint64(q.MemoryMax)<<20)))
	}
	switch {
	case q.Class == dom0.AdminVM:
	case q.NetVM == "":
		facts = append(facts, words.T("offline"))
	default:
		facts = append(facts, words.T("network by %s", q.NetVM))
	}
	return strings.Join(facts, " · ")
}

// backedUp is when a qube was backed up last.
func backedUp(t, now time.Time) string {
	if t.IsZero() {
		return words.T("never")
	}
	return since(t.In(now.Location()), now)
}

// remarkOn is what people should know about q: its problem, else that its
// template moved on, else what its isolation does not protect from.
func remarkOn(q *dom0.Qube) (kind, text string) {
	switch {
	case q.Problem != "":
		return "problem", q.Problem
	case q.State == dom0.Crashed:
		return "problem", words.T("It ended unexpectedly. Start it again.")
	case q.Outdated:
		return "info", words.T("%s has a newer version: restart to use it.", q.Template)
	case q.Updates:
		return "info", words.T("There are updates for it.")
	case q.Weakness != "":
		return "isolation", words.T("Isolation by %s: %s", q.Isolation, words.Known(q.Weakness))
	case q.Isolation != "":
		return "isolation", words.T("Isolation by %s.", q.Isolation)
	}
	return "", ""
}

// errands are the running jobs whose qube is not in the table yet.
type errands struct {
	box     *fyne.Container
	cancel  func(dom0.JobID)
	shown   []dom0.JobID
	bars    map[dom0.JobID]*errand
	resized func()
}

type errand struct {
	text *widget.Label
	bar  *control.Bar
}

func newErrands(cancel func(dom0.JobID)) *errands {
	return &errands{box: container.NewVBox(), cancel: cancel, bars: map[dom0.JobID]*errand{}}
}

func (e *errands) show(s *dom0.Snapshot) {
	var list []dom0.Job
	if s.Link == dom0.Connected {
		for _, j := range s.Jobs {
			if _, known := s.ByName(j.Qube); j.State == dom0.JobRunning && !known {
				list = append(list, j)
			}
		}
	}
	same := len(list) == len(e.shown)
	for i := 0; same && i < len(list); i++ {
		same = list[i].ID == e.shown[i]
	}
	if !same {
		e.box.RemoveAll()
		e.shown, e.bars = nil, map[dom0.JobID]*errand{}
		for _, j := range list {
			one := &errand{text: widget.NewLabel(""), bar: control.NewBar()}
			one.text.Truncation = fyne.TextTruncateEllipsis
			stop := control.NewButton(words.T("Cancel"), nil, func() { e.cancel(j.ID) })
			e.box.Add(panel(theme.NoticeGround, "", control.Border(nil, nil, nil,
				container.NewHBox(container.NewCenter(one.bar), stop), one.text)))
			e.shown = append(e.shown, j.ID)
			e.bars[j.ID] = one
		}
		e.resized()
	}
	for _, j := range list {
		setLabel(e.bars[j.ID].text, jobText(j))
		e.bars[j.ID].bar.Set(j.Progress)
	}
}
