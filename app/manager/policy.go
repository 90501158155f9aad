package manager

import (
	"context"
	"path"
	"slices"
	"strings"

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

// permissions is the page of what the policy lets a qube call, and who may
// call it: a line for each service, with the qubes that it is about.
type permissions struct {
	pane   *host
	box    fyne.CanvasObject
	search *control.Entry
	list   *fyne.Container
	known  []dom0.Permission

	service, target *control.Entry // of the call that people ask about
	answer          *widget.Label
}

func newPermissions(p *host) *permissions {
	o := &permissions{pane: p, list: container.New(layout.NewCustomPaddedVBoxLayout(6))}
	o.search = control.NewEntry(words.T("Find a service or a qube"))
	o.search.OnChanged = func(string) { o.draw() }
	o.search.OnEscape = func() {
		if o.search.Text != "" {
			o.search.SetText("")
			return
		}
		p.escape()
	}
	o.service = control.NewEntry(words.T("Service, such as qubes.Filecopy"))
	o.target = control.NewEntry(words.T("Target qube"))
	o.service.OnSubmitted = func(string) { p.manager.canvas.Focus(o.target) }
	o.target.OnSubmitted = func(string) { o.explain() }
	try := control.NewButton(words.T("Ask the policy"), nil, o.explain)
	o.service.OnEscape, o.target.OnEscape, try.OnEscape = p.escape, p.escape, p.escape
	o.answer = widget.NewLabel("")
	o.answer.Wrapping = fyne.TextWrapWord
	o.answer.Hide()
	question := container.New(layout.NewCustomPaddedLayout(6, 0, 0, 0), container.NewVBox(
		control.Border(nil, nil, nil, try, container.NewGridWithColumns(2, o.service, o.target)), o.answer))
	o.box = control.Border(container.New(layout.NewCustomPaddedLayout(0, 8, 0, 0), o.search), question, nil, nil,
		container.NewVScroll(container.New(layout.NewCustomPaddedLayout(0, 0, 0, scrollBar), o.list)))
	return o
}

func (o *permissions) title() string           { return words.T("Policy") }
func (o *permissions) body() fyne.CanvasObject { return o.box }
func (o *permissions) leave()                  {}

func (o *permissions) show(q dom0.Qube, fresh bool) {
	if fresh {
		o.known = nil
		o.list.RemoveAll()
		control.Show(o.answer, false)
	}
	var list []dom0.Permission
	o.pane.ask(func(ctx context.Context) (err error) {
		list, err = o.pane.manager.client.Permissions(ctx, q.ID)
		return err
	}, func() {
		if !fresh && slices.Equal(list, o.known) {
			return
		}
		o.known = list
		o.draw()
	})
}

// explain asks what would become of a call of the qube's.
func (o *permissions) explain() {
	service, target := strings.TrimSpace(o.service.Text), strings.TrimSpace(o.target.Text)
	if service == "" {
		o.pane.manager.canvas.Focus(o.service)
		return
	}
	if target == "" {
		target = "@default"
	}
	id := o.pane.subject.ID
	var e dom0.Explanation
	o.pane.manager.inquire(func(ctx context.Context) (err error) {
		e, err = o.pane.manager.client.ExplainCall(ctx, id, target, service)
		return err
	}, func(err error) {
		importance, text := explanation(e)
		if err != nil {
			importance, text = widget.DangerImportance, reason(err)
		}
		o.answer.Importance = importance
		o.answer.SetText(text)
		control.Show(o.answer, true)
		o.box.Refresh() // the list gives the answer its room
	})
}

// explanation says what would become of a call.
func explanation(e dom0.Explanation) (widget.Importance, string) {
	importance, text := widget.DangerImportance, words.T("It would be denied: %s.", words.Known(string(e.Reason)))
	switch e.Result {
	case dom0.Allowed:
		importance, text = widget.SuccessImportance, words.T("It would be allowed, to %s.", targetWord(string(e.Target)))
	case dom0.Asked:
		targets := bundle{}
		for _, t := range e.Targets {
			targets.qubes = append(targets.qubes, targetWord(string(t)))
		}
		importance, text = widget.MediumImportance, words.T("You would be asked, with the choice of: %s.", targets.names())
	case dom0.NoCall:
		text = words.T("This is no call: %s.", words.Known(string(e.Reason)))
	}
	if e.Rule != "" {
		text += " " + words.T("(rule %s)", path.Base(string(e.Rule)))
	}
	return importance, text
}

// bundle is what one service is allowed with.
type bundle struct {
	service string
	ask     bool
	qubes   []string
}

// bundles gather permissions by service; other is the qube at the other end.
func bundles(list []dom0.Permission, query []string, other func(dom0.Permission) (string, bool)) []bundle {
	var all []bundle
	for _, p := range list {
		name, ours := other(p)
		if !ours || !mentions(string(p.Service)+" "+name, query) {
			continue
		}
		i := slices.IndexFunc(all, func(b bundle) bool { return b.service == string(p.Service) && b.ask == p.Ask })
		if i < 0 {
			all = append(all, bundle{service: string(p.Service), ask: p.Ask})
			i = len(all) - 1
		}
		if !slices.Contains(all[i].qubes, name) {
			all[i].qubes = append(all[i].qubes, name)
		}
	}
	slices.SortStableFunc(all, func(a, b bundle) int { return strings.Compare(a.service, b.service) })
	return all
}

// maxNames is how many qubes a line names; the search finds the others.
const maxNames = 12

func (b *bundle) names() string {
	if len(b.qubes) <= maxNames {
		return strings.Join(b.qubes, ", ")
	}
	return words.T("%s and %d more", strings.Join(b.qubes[:maxNames-1], ", "), len(b.qubes)-maxNames+1)
}

func mentions(text string, query []string) bool {
	return !slices.ContainsFunc(query, func(w string) bool { return !contains(text, w) })
}

func (o *permissions) draw() {
	name := string(o.pane.subject.Name)
	query := strings.Fields(strings.ToLower(o.search.Text))
	calls := bundles(o.known, query, func(p dom0.Permission) (string, bool) {
		return targetWord(string(p.Target)), string(p.Source) == name
	})
	called := bundles(o.known, query, func(p dom0.Permission) (string, bool) {
		return string(p.Source), string(p.Target) == name || string(p.Target) == "@dispvm:"+name
	})
	o.list.RemoveAll()
	o.part(words.T("What %s may call", name), words.T("Nothing: the policy lets it call no service."), calls, query)
	o.part(words.T("Who may call %s", name), words.T("Nobody: the policy lets no qube call a service of it."), called, query)
	o.list.Add(remark("info", words.T("The rules are files in /etc/qubes/policy.d; “qubes-policy” edits them.")))
	o.box.Refresh()
}

// part is one direction of calls.
func (o *permissions) part(title, none string, list []bundle, query []string) {
	head := widget.NewLabel(title)
	head.TextStyle.Bold = true
	o.list.Add(head)
	if len(list) == 0 {
		if len(query) > 0 {
			none = words.T("Nothing fits the search.")
		}
		text := widget.NewLabel(none)
		text.Wrapping = fyne.TextWrapWord
		o.list.Add(text)
	}
	for _, b := range list {
		o.list.Add(o.line(b))
	}
	o.list.Add(widget.NewSeparator())
}

// line is one service: its name, whether a person is asked, and the qubes.
func (o *permissions) line(b bundle) fyne.CanvasObject {
	paint := control.NewPainter()
	normal, small := paint.Size(fynetheme.SizeNameText), paint.Size(fynetheme.SizeNameCaptionText)
	room := o.pane.room() - scrollBar - 24
	word, ink := words.T("without asking"), theme.Weak
	if b.ask {
		word, ink = words.T("asks you"), theme.Muted
	}
	how := canvas.NewText(word, paint.Ink(ink))
	how.TextSize = small
	service := canvas.NewText(cut(b.service, room-how.MinSize().Width-12, normal, fyne.TextStyle{}), paint.Ink(fynetheme.ColorNameForeground))
	service.TextSize = normal
	lines := container.New(layout.NewCustomPaddedVBoxLayout(1),
		container.NewHBox(service, layout.NewSpacer(), container.NewCenter(how)))
	for _, text := range wrap(b.names(), room, small) {
		t := canvas.NewText(text, paint.Ink(theme.Muted))
		t.TextSize = small
		lines.Add(t)
	}
	return container.New(layout.NewCustomPaddedLayout(0, 2, 8, 8), lines)
}

// targetWord is a target in people's words.
func targetWord(target string) string {
	if base, ok := strings.CutPrefix(target, "@dispvm:"); ok {
		return words.T("a new disposable of %s", base)
	}
	return target
}
