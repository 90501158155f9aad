package manager

import (
	"context"
	"fmt"
	"path"
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
)

// calls is the section of the last calls from a qube and to it, and of what
// was decided about them. It follows while people look.
type calls struct {
	pane  *host
	box   fyne.CanvasObject
	list  *fyne.Container
	none  *widget.Label
	shown []dom0.Call
	drawn bool
	next  func() // stops the next look; nil: none is due
}

// callsLimit is how many are asked for.
const callsLimit = 60

func newCalls(p *host) *calls {
	c := &calls{pane: p, list: container.NewVBox(), none: widget.NewLabel("")}
	c.none.Wrapping = fyne.TextWrapWord
	c.box = container.NewStack(container.NewVScroll(container.New(layout.NewCustomPaddedLayout(8, 0, 0, scrollBar), c.list)), container.NewVBox(c.none))
	return c
}

func (c *calls) title() string           { return words.T("Calls") }
func (c *calls) body() fyne.CanvasObject { return c.box }

func (c *calls) leave() {
	if c.next != nil {
		c.next()
		c.next = nil
	}
}

func (c *calls) show(q dom0.Qube, fresh bool) {
	if fresh {
		c.drawn = false
		c.list.RemoveAll()
		setLabel(c.none, "")
	}
	c.leave()
	var list []dom0.Call
	c.pane.ask(func(ctx context.Context) (err error) {
		list, err = c.pane.manager.client.RecentCalls(ctx, q.ID, callsLimit)
		return err
	}, func() {
		c.draw(list)
		c.next = c.pane.manager.opts.Later(transcriptPause, func() {
			if c.next != nil && c.pane.isOpen() && c.pane.subject.ID == q.ID {
				c.show(c.pane.subject, false)
			}
		})
	})
}

func (c *calls) draw(list []dom0.Call) {
	setLabel(c.none, words.T("No program in %s has called another qube, and none was called here, since qubesd was started.", c.pane.subject.Name))
	control.Show(c.none, len(list) == 0)
	if c.drawn && sameCalls(list, c.shown) {
		return
	}
	c.shown, c.drawn = list, true
	c.list.RemoveAll()
	for _, one := range list {
		c.list.Add(c.card(one))
	}
	c.box.Refresh() // the scroller gives the list its room
}

func sameCalls(a, b []dom0.Call) bool {
	same := len(a) == len(b)
	for i := 0; same && i < len(a); i++ {
		same = a[i].Time.Equal(b[i].Time) && a[i].Running == b[i].Running && a[i].Allowed == b[i].Allowed &&
			a[i].Service == b[i].Service && a[i].Target == b[i].Target && a[i].Reason == b[i].Reason && a[i].Failure == b[i].Failure
	}
	return same
}

// card is one call: the service and when, from where to where, and what was
// decided by which rule.
func (c *calls) card(one dom0.Call) fyne.CanvasObject {
	paint := control.NewPainter()
	normal, small := paint.Size(fynetheme.SizeNameText), paint.Size(fynetheme.SizeNameCaptionText)
	room := c.pane.room() - scrollBar - callSign
	line := func(text string, ink fyne.ThemeColorName, size float32, style fyne.TextStyle, wide float32) *canvas.Text {
		t := canvas.NewText(cut(text, wide, size, style), paint.Ink(ink))
		t.TextSize, t.TextStyle = size, style
		return t
	}
	when := line(since(one.Time.In(c.pane.manager.opts.Now().Location()), c.pane.manager.opts.Now()), theme.Muted, small, fyne.TextStyle{}, room)
	service := line(string(one.Service), fynetheme.ColorNameForeground, normal, fyne.TextStyle{Bold: true}, room-when.MinSize().Width-8)
	lines := container.New(layout.NewCustomPaddedVBoxLayout(1),
		container.NewHBox(service, layout.NewSpacer(), container.NewCenter(when)),
		line(way(one), fynetheme.ColorNameForeground, normal, fyne.TextStyle{}, room))
	for _, text := range wrap(verdict(one), room, small) {
		lines.Add(line(text, theme.Muted, small, fyne.TextStyle{}, room))
	}
	sign, ink := "check", fyne.ThemeColorName(fynetheme.ColorNameSuccess)
	switch {
	case !one.Allowed:
		sign, ink = "denied", fynetheme.ColorNameError
	case one.Failure != "":
		sign, ink = "warning", fynetheme.ColorNameWarning
	case one.Running:
		sign = "play"
	}
	for _, why := range []dom0.Text{one.Reason, one.Failure} {
		if why == "" {
			continue
		}
		for _, text := range wrap(words.Known(string(why)), room, small) {
			lines.Add(line(text, fynetheme.ColorNameError, small, fyne.TextStyle{}, room))
		}
	}
	icon := canvas.NewImageFromResource(control.ColorIcon(sign, ink))
	icon.SetMinSize(fyne.NewSquareSize(16))
	return container.NewVBox(
		control.Border(nil, nil, container.New(layout.NewCustomPaddedLayout(3, 0, 4, 8), container.NewVBox(icon)), nil, lines),
		widget.NewSeparator())
}

// callSign is what the sign beside a call takes of the width.
const callSign = 32

// way is from where a call went to where.
func way(c dom0.Call) string {
	source, asked := string(c.Source), string(c.Asked)
	if source == "" {
		source = words.T("an unknown qube")
	}
	switch {
	case asked == "" || asked == "@default":
		asked = words.T("(left to the policy)")
	case asked == "@dispvm" || strings.HasPrefix(asked, "@dispvm:"):
		asked = words.T("a new disposable")
	}
	text := source + " › " + asked
	if c.Target != "" && c.Target != c.Asked {
		text += " › " + string(c.Target)
	}
	return text
}

// verdict is what was decided, by which rule, and how long it took.
func verdict(c dom0.Call) string {
	asked := c.Asking > 0
	var parts []string
	switch {
	case c.Allowed && asked:
		parts = append(parts, words.T("allowed after asking"))
	case c.Allowed:
		parts = append(parts, words.T("allowed"))
	case asked:
		parts = append(parts, words.T("denied after asking"))
	default:
		parts = append(parts, words.T("denied"))
	}
	if c.Rule != "" {
		parts = append(parts, words.T("rule %s", path.Base(string(c.Rule))))
	}
	if c.Allowed && c.Opening > 0 {
		parts = append(parts, words.T("began after %s", brief(c.Opening)))
	}
	if c.Running {
		parts = append(parts, words.T("goes on"))
	}
	return strings.Join(parts, " · ")
}

// brief writes a short time.
func brief(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
