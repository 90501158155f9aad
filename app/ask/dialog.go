// Package ask is the window that asks a person whether a call between qubes
// may be made (spec/qrexec.md §11). Dialog is one question; the policy agent
// that it belongs to is package agent.
//
// The window says in words what will happen, and answers with nothing but a
// name of its list. It is made for the keyboard: typing filters, arrows
// choose, Enter allows, Esc denies. What was typed before anybody could have
// read it does not count, and it never allows.
package ask

import (
	"strings"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/ask/agent"
	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme"
	"cubicle/theme/label"
)

// Options are what a dialog needs of its surroundings.
type Options struct {
	Canvas fyne.Canvas
	// Answer is called once, with what the person said.
	Answer func(agent.Answer)
	Now    func() time.Time
	// Later calls f on the UI's goroutine after d, unless stop was called.
	Later func(d time.Duration, f func()) (stop func())
	// Until is when the question is denied by itself.
	Until time.Time
}

// Dialog is one question. Its methods belong to the UI's goroutine.
type Dialog struct {
	o       Options
	request agent.Request
	gate    gate
	all     []party
	list    *list
	done    bool
	stop    func() // of what was to be done later

	icon        *canvas.Image
	search      *search
	hint        *widget.RichText // what the choice will do
	nobody      *widget.Label
	notes       *widget.RichText
	behind      string // who waits
	left        string // time
	allow, deny *control.Button
	denyAll     *control.Button
	buttons     *fyne.Container
	content     *fyne.Container
	danger      string
}

// Size is a dialog's size when it appears.
func Size() fyne.Size {
	letter := control.NewPainter().Size(fynetheme.SizeNameText)
	return fyne.NewSize(36*letter, 36*letter)
}

// New makes the content of a dialog.
func New(r agent.Request, s *dom0.Snapshot, o Options) *Dialog {
	d := &Dialog{o: o, request: r, stop: func() {}}
	d.list = newList(func(string) { d.update() })
	d.search = newSearch(d)
	d.search.OnChanged = func(string) { d.filter() }
	d.icon = &canvas.Image{FillMode: canvas.ImageFillContain}
	d.icon.SetMinSize(fyne.NewSquareSize(28))
	d.hint = widget.NewRichText()
	d.hint.Wrapping = fyne.TextWrapWord
	d.nobody = widget.NewLabel(words.T("No qube of that name may be chosen."))
	d.nobody.Alignment = fyne.TextAlignCenter
	d.nobody.Wrapping = fyne.TextWrapWord
	d.notes = widget.NewRichText()
	d.notes.Wrapping = fyne.TextWrapWord
	d.allow = control.NewButton(words.T("Allow"), nil, d.say)
	d.allow.Importance = widget.HighImportance
	d.deny = control.NewButton(words.T("Deny"), nil, d.refuse)
	d.denyAll = control.NewButton("", nil, func() { d.answer(agent.Answer{All: true}) })
	d.denyAll.Hide()
	for _, b := range []*control.Button{d.allow, d.deny, d.denyAll} {
		b.OnEscape = d.refuse
	}
	d.build()
	d.SetSnapshot(s)
	d.list.show(d.all, r.Default)
	d.update()
	o.Canvas.SetOnTypedKey(func(ev *fyne.KeyEvent) {
		if !d.key(ev.Name) {
			d.search.Entry.TypedKey(ev)
		}
	})
	return d
}

// margin is the room around everything.
const margin = 16

func (d *Dialog) build() {
	p := phraseOf(d.request.Service)
	d.danger = p.danger
	before, after, _ := strings.Cut(p.text, "%s")
	heading := widget.RichTextStyle{SizeName: fynetheme.SizeNameSubHeadingText, Inline: true}
	name := heading
	name.TextStyle.Bold = true
	what := widget.NewRichText(
		&widget.TextSegment{Text: before, Style: heading},
		&widget.TextSegment{Text: d.request.Source, Style: name},
		&widget.TextSegment{Text: after, Style: heading})
	what.Wrapping = fyne.TextWrapWord

	first, rest, dotted := strings.Cut(d.request.Service, ".")
	if dotted {
		first += "."
	}
	plain := widget.RichTextStyle{ColorName: theme.Muted, Inline: true}
	strong := plain
	strong.TextStyle.Bold = true
	service := []widget.RichTextSegment{&widget.TextSegment{Text: agent.Shorten(first, maxShown), Style: plain}, &widget.TextSegment{Text: agent.Shorten(rest, maxShown), Style: strong}}
	if d.request.Argument != "" {
		service = append(service, &widget.TextSegment{Text: "+" + agent.Shorten(d.request.Argument, maxShown), Style: plain})
	}
	call := widget.NewRichText(service...)
	call.Wrapping = fyne.TextWrapBreak

	head := control.Border(nil, nil, container.New(layout.NewCustomPaddedLayout(4, 0, 0, 0), container.NewVBox(d.icon)), nil,
		container.New(column{gap: -8}, what, call))
	frame := control.NewGround(fynetheme.ColorNameInputBackground, fynetheme.ColorNameInputBorder, 8)
	targets := container.NewStack(frame, container.New(layout.NewCustomPaddedLayout(3, 3, 1, 1), d.list.scroll), container.NewCenter(d.nobody))
	targets = container.New(layout.NewCustomPaddedLayout(4, 4, 0, 0), targets)
	d.buttons = container.New(layout.NewCustomPaddedHBoxLayout(8), d.denyAll, layout.NewSpacer(), d.deny, d.allow)
	d.content = container.New(column{gap: 4, grow: targets}, head, d.search, targets,
		container.New(column{gap: -10}, d.hint, d.notes),
		container.New(layout.NewCustomPaddedLayout(4, 0, 0, 0), d.buttons))
}

// maxShown bounds a part of the call that is shown, in letters.
const maxShown = 160

// Content is what belongs into the window.
func (d *Dialog) Content() fyne.CanvasObject {
	return container.New(layout.NewCustomPaddedLayout(margin-4, margin, margin, margin), d.content)
}

// Title is the window's.
func (d *Dialog) Title() string { return words.T("%s asks", d.request.Source) }

// Begin puts the keyboard where it belongs, once the window has its content.
func (d *Dialog) Begin() {
	d.o.Canvas.Focus(d.search)
	d.list.reveal()
	d.tick()
}

// SetSnapshot shows the qubes as they are now.
func (d *Dialog) SetSnapshot(s *dom0.Snapshot) {
	d.all = parties(d.request, s)
	source := partyOf(d.request.Source, d.request, s)
	control.SetImage(d.icon, control.LabelIcon(source.shape, source.color))
	d.list.show(filter(d.all, d.search.Text), d.list.chosen)
	d.update()
}

// SetWaiting tells the sources of the questions behind this one.
func (d *Dialog) SetWaiting(sources []string) {
	same := 0
	var others []string
	seen := map[string]bool{}
	for _, s := range sources {
		if s == d.request.Source {
			same++
		}
		if !seen[s] {
			seen[s] = true
			others = append(others, s)
		}
	}
	const named = 3
	if len(others) > named {
		others = append(others[:named:named], "…")
	}
	d.behind = ""
	if n := len(sources); n > 0 {
		d.behind = words.N(n, "%d more request waits", "%d more requests wait") + ": " + strings.Join(others, ", ")
	}
	d.denyAll.SetText(words.T("Deny all of %s", d.request.Source))
	control.Show(d.denyAll, same > 0)
	d.buttons.Refresh()
	d.update()
}

// Focused tells that the window has got or lost the keyboard.
func (d *Dialog) Focused(focused bool) {
	d.gate.focus(focused, d.o.Now())
	d.tick()
}

// tick updates what changes with time, now and when it changes next.
func (d *Dialog) tick() {
	d.stop()
	d.stop = func() {}
	if d.done {
		return
	}
	now := d.o.Now()
	left := d.o.Until.Sub(now)
	if left <= 0 {
		d.refuse()
		return
	}
	next := left - countdown
	d.left = ""
	if left <= countdown {
		seconds := int((left + time.Second - 1) / time.Second)
		d.left = words.N(seconds, "Denied in %d second", "Denied in %d seconds")
		next = left - time.Duration(seconds-1)*time.Second
	}
	if opens := d.gate.left(now); opens > 0 {
		next = min(next, opens)
	}
	d.update()
	d.stop = d.o.Later(max(next, time.Millisecond), d.tick)
}

// countdown is how long before its end a question says so.
const countdown = 30 * time.Second

// filter shows what the query leaves.
func (d *Dialog) filter() {
	left := filter(d.all, d.search.Text)
	chosen := d.list.chosen
	if m, ok := meant(left, d.search.Text); ok {
		chosen = m
	}
	kept := ""
	for _, p := range left {
		if p.answer == chosen {
			kept = chosen
		}
	}
	d.list.show(left, kept)
	d.update()
}

// live tells whether Allow allows.
func (d *Dialog) live() bool {
	return !d.done && d.gate.open(d.o.Now()) && d.list.index() >= 0
}

// update shows what the choice means and whether it can be made.
func (d *Dialog) update() {
	d.allow.Able(d.live())
	control.Show(d.nobody, len(d.list.rows) == 0)
	segments := d.meaning()
	d.hint.Segments = segments
	d.hint.Refresh()
	d.notes.Segments = d.remarks()
	d.notes.Refresh()
	control.Show(d.notes, len(d.notes.Segments) > 0)
	// The notes may be higher or lower now.
	d.content.Layout.Layout(d.content.Objects, d.content.Size())
}

// meaning says what the choice will do.
func (d *Dialog) meaning() []widget.RichTextSegment {
	muted := widget.RichTextStyle{ColorName: theme.Muted, Inline: true}
	caution := widget.RichTextStyle{ColorName: theme.Caution, Inline: true}
	at := d.list.index()
	if at < 0 {
		return []widget.RichTextSegment{&widget.TextSegment{Text: words.T("Choose a qube: type its name, or press the arrow keys."), Style: muted}}
	}
	p := d.list.rows[at]
	text := ""
	switch {
	case strings.HasPrefix(p.answer, agent.DispVM):
		text = words.T("A new disposable is made for this, and removed afterwards.")
	case p.shape == label.Shield:
		return []widget.RichTextSegment{&widget.TextSegment{Text: words.T("dom0 controls all qubes. Allow this only if you have just asked for it yourself."), Style: caution}}
	case p.note != "":
		text = words.T("%s does not run: it is started for this.", p.title)
	}
	var out []widget.RichTextSegment
	if d.danger != "" {
		out = append(out, &widget.TextSegment{Text: d.danger + " ", Style: caution})
	}
	return append(out, &widget.TextSegment{Text: text, Style: muted})
}

// remarks are lines of second rank.
func (d *Dialog) remarks() (out []widget.RichTextSegment) {
	rule := ""
	if d.request.Rule != "" {
		rule = words.T("Rule: %s", d.request.Rule)
	}
	for _, line := range []string{d.behind, rule, d.left} {
		if line != "" {
			style := widget.RichTextStyle{ColorName: theme.Muted, SizeName: fynetheme.SizeNameCaptionText}
			out = append(out, &widget.TextSegment{Text: line, Style: style})
		}
	}
	return out
}

// say allows the chosen target.
func (d *Dialog) say() {
	if d.live() {
		d.answer(agent.Answer{Target: d.list.chosen})
	}
}

func (d *Dialog) refuse() { d.answer(agent.Answer{}) }

// Refuse is the window's close button.
func (d *Dialog) Refuse() { d.refuse() }

func (d *Dialog) answer(a agent.Answer) {
	if d.done {
		return
	}
	d.done = true
	d.stop()
	d.o.Answer(a)
}

// key does what a key means in the whole window, and tells whether it means
// something there.
func (d *Dialog) key(name fyne.KeyName) bool {
	if name == fyne.KeyEscape {
		d.refuse()
		return true
	}
	if !d.typed() {
		return true
	}
	switch name {
	case fyne.KeyReturn, fyne.KeyEnter:
		d.say()
	case fyne.KeyDown:
		d.list.step(1)
	case fyne.KeyUp:
		d.list.step(-1)
	case fyne.KeyPageDown:
		d.list.step(d.list.page())
	case fyne.KeyPageUp:
		d.list.step(-d.list.page())
	default:
		return false
	}
	return true
}

// typed tells that something was typed, and returns whether it counts.
func (d *Dialog) typed() bool {
	counts := d.gate.key(d.o.Now())
	if !counts {
		d.tick() // it opens later
	}
	return counts
}
