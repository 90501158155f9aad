package manager

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/create"
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// volumes is the section of disks.
type volumes struct {
	pane *host
	box  fyne.CanvasObject
	list *fyne.Container
	hint *widget.Label
}

func newVolumes(p *host) *volumes {
	v := &volumes{pane: p, list: container.NewVBox(), hint: widget.NewLabel("")}
	v.hint.Wrapping = fyne.TextWrapWord
	v.box = control.Border(nil, v.hint, nil, nil, container.NewVScroll(container.New(layout.NewCustomPaddedLayout(0, 0, 0, scrollBar), v.list)))
	return v
}

func (v *volumes) title() string           { return words.T("Volumes") }
func (v *volumes) body() fyne.CanvasObject { return v.box }
func (v *volumes) leave()                  {}

func (v *volumes) show(q dom0.Qube, fresh bool) {
	if fresh {
		v.list.RemoveAll()
		setLabel(v.hint, "")
	}
	var list []dom0.Volume
	v.pane.ask(func(ctx context.Context) (err error) {
		list, err = v.pane.manager.client.Volumes(ctx, q.ID)
		return err
	}, func() { v.draw(q, list) })
}

func (v *volumes) draw(q dom0.Qube, list []dom0.Volume) {
	halted := q.State == dom0.Halted || q.State == dom0.Crashed
	v.list.RemoveAll()
	for _, one := range list {
		v.list.Add(v.card(q, one, halted))
	}
	hint := ""
	if !halted {
		hint = words.T("Shut %s down to resize a volume or to revert it.", q.Name)
	}
	setLabel(v.hint, hint)
	control.Show(v.hint, hint != "")
	v.box.Refresh() // the scroller gives the list its room
}

// card is one volume.
func (v *volumes) card(q dom0.Qube, one dom0.Volume, halted bool) fyne.CanvasObject {
	m := v.pane.manager
	name := widget.NewLabel(volumeName(one.Name))
	name.TextStyle.Bold = true
	kept := words.T("kept")
	if !one.Keeps {
		kept = words.T("gone after shutdown")
	}
	facts := widget.NewLabel(words.T("%s of %s · %s", size(one.Usage), size(one.Size), kept))
	facts.Truncation = fyne.TextTruncateEllipsis
	bar := control.NewBar()
	if one.Size > 0 {
		bar.Value = float64(one.Usage) / float64(one.Size)
	}
	resize := control.NewButton(words.T("Resize …"), nil, func() { v.resize(q, one) })
	resize.OnEscape = m.Focus
	resize.Able(halted)
	lines := container.New(layout.NewCustomPaddedVBoxLayout(3),
		control.Border(nil, nil, name, resize),
		container.New(layout.NewCustomPaddedLayout(0, 0, 8, 8), bar), facts)
	if !one.Keeps {
		resize.Hide()
	}
	for _, revision := range slices.Backward(one.Revisions) {
		kept := slices.Contains(one.Kept, revision)
		keep := control.NewButton(words.T("Keep"), nil, func() { v.keep(one, revision, !kept) })
		text := words.T("State of %s", revisionTime(revision, m.opts.Now()))
		if kept {
			keep.SetText(words.T("Let go"))
			text = words.T("Kept state of %s", revisionTime(revision, m.opts.Now()))
		}
		keep.OnEscape = m.Focus
		revert := control.NewButton(words.T("Revert …"), nil, func() { v.revert(q, one, revision) })
		revert.OnEscape = m.Focus
		revert.Able(halted)
		when, actions := widget.NewLabel(text), container.NewHBox(keep, revert)
		if when.MinSize().Width+actions.MinSize().Width > v.pane.room()-scrollBar {
			lines.Add(when)
			lines.Add(container.NewHBox(layout.NewSpacer(), actions))
			continue
		}
		lines.Add(control.Border(nil, nil, nil, actions, when))
	}
	return container.NewVBox(lines, widget.NewSeparator())
}

// scrollBar is what the list leaves for it.
const scrollBar = 12

// volumeName is a volume in people's words.
func volumeName(name string) string {
	switch name {
	case "root":
		return words.T("System (root)")
	case "private":
		return words.T("Files (private)")
	case "volatile":
		return words.T("Scratch (volatile)")
	}
	return name
}

// revisionTime reads when a revision was current from its name
// (NUMBER@TIMEZ); a name of another form is shown as it is.
func revisionTime(revision string, now time.Time) string {
	_, stamp, _ := strings.Cut(revision, "@")
	t, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return revision
	}
	return since(t.In(now.Location()), now)
}

// keep makes a revision stay however old it gets, or lets it go; neither
// changes what the qube sees, so nothing is asked.
func (v *volumes) keep(one dom0.Volume, revision string, keep bool) {
	v.pane.act("keep", func(ctx context.Context, id dom0.QubeID) error {
		return v.pane.manager.client.KeepRevision(ctx, id, one.Name, revision, keep)
	})
}

func (v *volumes) revert(q dom0.Qube, one dom0.Volume, revision string) {
	m := v.pane.manager
	when := revisionTime(revision, m.opts.Now())
	m.ask(question{
		icon:  control.ColorIcon("warning", fynetheme.ColorNameError),
		title: words.T("Revert %s of %s?", volumeName(one.Name), q.Name),
		loss:  words.T("It becomes what it was at %s. What it holds now stays as a revision, unless an older one has to go for it.", when),
		do:    words.T("Revert"),
		act: func() {
			v.pane.act("revert", func(ctx context.Context, id dom0.QubeID) error { return m.client.Revert(ctx, id, one.Name, revision) })
		},
	})
}

func (v *volumes) resize(q dom0.Qube, one dom0.Volume) {
	m := v.pane.manager
	m.askText(prompt{
		title:       words.T("Resize %s of %s", volumeName(one.Name), q.Name),
		hint:        words.T("A volume can only grow. It takes room as it fills."),
		placeholder: words.T("Size in GB"),
		text:        fmt.Sprintf("%.4g", float64(one.Size)/giga),
		do:          words.T("Resize"),
		check:       func(text string) string { _, why := parseSize(text, one.Size); return why },
		act: func(text string) {
			bytes, why := parseSize(text, one.Size)
			if why != "" {
				return // the check does not let it through
			}
			v.pane.act("resize", func(ctx context.Context, id dom0.QubeID) error { return m.client.Resize(ctx, id, one.Name, bytes) })
		},
	})
}

// giga is a GB as disks have it.
const giga = 1e9

// parseSize reads a size in GB that is larger than now, or says why not.
func parseSize(text string, now uint64) (bytes uint64, why string) {
	bytes, ok := create.ParseGB(text)
	switch {
	case !ok:
		return 0, words.T("a size in GB is needed, such as 8")
	case bytes <= now:
		return 0, words.T("it has to be more than %s GB", fmt.Sprintf("%.4g", float64(now)/giga))
	}
	return bytes, ""
}
