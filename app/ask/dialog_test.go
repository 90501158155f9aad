package ask

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/test"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/ask/agent"
	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/dom0/dom0test"
	"cubicle/app/words"
	"cubicle/theme"
)

// noon is when the tests take place.
var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// rig is a dialog in a window of the test driver, with a clock of its own.
type rig struct {
	t       *testing.T
	d       *Dialog
	window  fyne.Window
	now     time.Time
	timers  []timer
	answers []agent.Answer
}

type timer struct {
	at   time.Time
	f    func()
	gone *bool
}

func labelled(name string) dom0.Label {
	labels := dom0test.Labels()
	return labels[slices.IndexFunc(labels, func(l dom0.Label) bool { return l.Name == name })]
}

func household() *dom0.Snapshot {
	s := &dom0.Snapshot{Link: dom0.Connected, Labels: dom0test.Labels()}
	for _, q := range []struct {
		name, label string
		class       dom0.Class
		state       dom0.State
	}{
		{"debian-12", "black", dom0.TemplateVM, dom0.Halted},
		{"dvm-online", "red", dom0.AppVM, dom0.Halted},
		{"personal", "yellow", dom0.AppVM, dom0.Running},
		{"untrusted", "red", dom0.AppVM, dom0.Running},
		{"vault", "black", dom0.AppVM, dom0.Halted},
		{"work", "blue", dom0.AppVM, dom0.Running},
	} {
		s.Qubes = append(s.Qubes, dom0.Qube{ID: dom0.QubeID(q.name), Name: dom0.Name(q.name), Class: q.class, Label: labelled(q.label), State: q.state})
	}
	return s
}

func filecopy() agent.Request {
	return agent.Request{Source: "work", Service: "qubes.Filecopy", Targets: []string{"vault", "@dispvm:dvm-online", "dom0", "untrusted", "personal", "debian-12"},
		Rule: "90-default.policy:12"}
}

func open(t *testing.T, r agent.Request, s *dom0.Snapshot) *rig {
	t.Helper()
	return openIn(t, r, s, fynetheme.VariantDark, "en")
}

func openIn(t *testing.T, request agent.Request, s *dom0.Snapshot, variant fyne.ThemeVariant, language string) *rig {
	t.Helper()
	words.Use(language)
	t.Cleanup(func() { words.Use("en") })
	a := test.NewTempApp(t)
	a.Settings().SetTheme(theme.NewForced(variant))
	r := &rig{t: t, now: noon, window: a.NewWindow("")}
	r.window.SetPadded(false)
	t.Cleanup(r.window.Close)
	r.d = New(request, s, Options{
		Canvas: r.window.Canvas(),
		Answer: func(a agent.Answer) { r.answers = append(r.answers, a) },
		Now:    func() time.Time { return r.now },
		Later: func(d time.Duration, f func()) func() {
			gone := false
			r.timers = append(r.timers, timer{r.now.Add(d), f, &gone})
			return func() { gone = true }
		},
		Until: noon.Add(5 * time.Minute),
	})
	r.window.SetContent(r.d.Content())
	r.window.Resize(Size())
	r.d.Begin()
	return r
}

// pass lets time pass.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	for end := r.now.Add(d); ; {
		next := -1
		for i, t := range r.timers {
			if !*t.gone && !t.at.After(end) && (next < 0 || t.at.Before(r.timers[next].at)) {
				next = i
			}
		}
		if next < 0 {
			r.now = end
			return
		}
		t := r.timers[next]
		r.timers = slices.Delete(r.timers, next, next+1)
		r.now = t.at
		t.f()
	}
}

// look is a person who has seen the dialog.
func (r *rig) look() *rig {
	r.t.Helper()
	r.d.Focused(true)
	r.pass(afterFocus)
	return r
}

// press sends keys to what has the keyboard, as the driver does.
func (r *rig) press(keys ...fyne.KeyName) {
	for _, k := range keys {
		ev := &fyne.KeyEvent{Name: k}
		if f := r.window.Canvas().Focused(); f != nil {
			f.TypedKey(ev)
		} else {
			r.window.Canvas().OnTypedKey()(ev)
		}
	}
}

func (r *rig) write(text string) {
	for _, c := range text {
		r.press(fyne.KeyName(strings.ToUpper(string(c))))
		r.window.Canvas().Focused().TypedRune(c)
	}
}

// shown are the titles in the list.
func (r *rig) shown() (titles []string) {
	for _, p := range r.d.list.rows {
		titles = append(titles, p.title)
	}
	return titles
}

// says collects all visible texts of the window.
func (r *rig) says() string {
	var all []string
	for _, o := range test.LaidOutObjects(r.d.Content()) {
		switch o := o.(type) {
		case *widget.Label:
			if o.Visible() {
				all = append(all, o.Text)
			}
		case *widget.RichText:
			all = append(all, o.String())
		case *canvas.Text:
			if o.Visible() {
				all = append(all, o.Text)
			}
		}
	}
	return strings.Join(all, "\n")
}

func (r *rig) mustSay(text string) {
	r.t.Helper()
	if !strings.Contains(r.says(), text) {
		r.t.Errorf("the window does not say %q but\n%s", text, r.says())
	}
}

func (r *rig) answered(want ...agent.Answer) {
	r.t.Helper()
	if !slices.Equal(r.answers, want) {
		r.t.Errorf("answered %+v, want %+v", r.answers, want)
	}
}

func TestTheWindowSaysWhatWillHappen(t *testing.T) {
	r := open(t, filecopy(), household()).look()
	r.mustSay("work wants to copy files to:")
	r.mustSay("qubes.Filecopy")
	r.mustSay("Rule: 90-default.policy:12")
	r.mustSay("Choose a qube")
	if want := []string{"debian-12", "personal", "untrusted", "vault", "Disposable VM (dvm-online)", "dom0"}; !slices.Equal(r.shown(), want) {
		t.Errorf("the list has %q, want %q", r.shown(), want)
	}
	r.press(fyne.KeyDown, fyne.KeyDown, fyne.KeyDown, fyne.KeyDown)
	r.mustSay("vault does not run: it is started for this.")
	r.press(fyne.KeyDown)
	r.mustSay("A new disposable is made for this")
	r.press(fyne.KeyDown, fyne.KeyDown)
	r.mustSay("dom0 controls all qubes.")
	r.press(fyne.KeyReturn)
	r.answered(agent.Answer{Target: "dom0"})

	request := filecopy()
	request.Service, request.Argument = "qubes.VMShell", strings.Repeat("x", 400)+"the+end"
	r = open(t, request, household()).look()
	r.mustSay("work wants to run commands in:")
	r.mustSay("the+end")
	if strings.Contains(r.says(), strings.Repeat("x", 200)) {
		t.Error("an argument of any length is shown")
	}
	r.press(fyne.KeyDown)
	r.mustSay("whatever you can do there")
}

func TestEnterAllowsTheDefault(t *testing.T) {
	request := filecopy()
	request.Default = "untrusted"
	r := open(t, request, household()).look()
	r.press(fyne.KeyReturn)
	r.answered(agent.Answer{Target: "untrusted"})
	r.press(fyne.KeyReturn, fyne.KeyEscape) // one answer
	r.answered(agent.Answer{Target: "untrusted"})
}

func TestNothingIsAllowedUnchosen(t *testing.T) {
	r := open(t, filecopy(), household()).look()
	r.press(fyne.KeyReturn)
	test.Tap(r.d.allow)
	r.answered()
	if !r.d.allow.Disabled() {
		t.Error("Allow is live with nobody chosen")
	}
	r.press(fyne.KeyUp)
	if r.d.allow.Disabled() || r.d.list.chosen != "dom0" {
		t.Errorf("chosen %q", r.d.list.chosen)
	}
	test.Tap(r.d.deny)
	r.answered(agent.Answer{})
}

// What is typed when nobody can have read the window neither allows nor
// stays, and who types on is waited for.
func TestWhatWasTypedForAnotherWindowDoesNotCount(t *testing.T) {
	request := filecopy()
	request.Default = "untrusted"
	r := open(t, request, household())
	r.press(fyne.KeyReturn) // before the keyboard is here at all
	r.pass(time.Minute)
	r.press(fyne.KeyReturn)
	r.d.Focused(true)
	r.write("rm -rf va")
	r.press(fyne.KeyReturn, fyne.KeyDown)
	test.Tap(r.d.allow)
	r.answered()
	if r.d.search.Text != "" || r.d.list.chosen != "untrusted" {
		t.Errorf("typed %q, chosen %q", r.d.search.Text, r.d.list.chosen)
	}
	r.pass(afterFocus - time.Millisecond)
	if !r.d.allow.Disabled() {
		t.Error("Allow is live before its time")
	}
	r.press(fyne.KeyReturn) // still typing
	r.pass(afterKey - time.Millisecond)
	r.press(fyne.KeyReturn)
	r.answered()
	r.pass(afterKey)
	if r.d.allow.Disabled() {
		t.Error("Allow is not live")
	}
	// The keyboard goes and comes back.
	r.d.Focused(false)
	r.press(fyne.KeyReturn)
	r.d.Focused(true)
	r.press(fyne.KeyReturn)
	r.answered()
	r.pass(afterFocus)
	r.press(fyne.KeyReturn)
	r.answered(agent.Answer{Target: "untrusted"})
}

func TestPastingBeforeItsTimeIsDropped(t *testing.T) {
	r := open(t, filecopy(), household())
	r.d.Focused(true)
	clipboard := fyne.CurrentApp().Clipboard()
	clipboard.SetContent("vault")
	r.d.search.TypedShortcut(&fyne.ShortcutPaste{Clipboard: clipboard})
	if r.d.search.Text != "" {
		t.Errorf("pasted %q", r.d.search.Text)
	}
	r.pass(afterFocus)
	r.d.search.TypedShortcut(&fyne.ShortcutPaste{Clipboard: clipboard})
	if r.d.search.Text != "vault" {
		t.Errorf("pasted %q", r.d.search.Text)
	}
}

func TestTypingFilters(t *testing.T) {
	r := open(t, filecopy(), household()).look()
	r.write("r")
	if r.d.list.chosen != "" || len(r.shown()) < 3 {
		t.Errorf("chosen %q of %q", r.d.list.chosen, r.shown())
	}
	r.write("ed") // a label
	if want := []string{"untrusted", "Disposable VM (dvm-online)"}; !slices.Equal(r.shown(), want) {
		t.Errorf("%q", r.shown())
	}
	r.press(fyne.KeyBackspace, fyne.KeyBackspace, fyne.KeyBackspace)
	r.write("vau") // the only one left is meant
	if r.d.list.chosen != "vault" {
		t.Errorf("chosen %q of %q", r.d.list.chosen, r.shown())
	}
	r.write("x")
	if r.d.list.chosen != "" || len(r.shown()) != 0 {
		t.Errorf("chosen %q of %q", r.d.list.chosen, r.shown())
	}
	r.mustSay("No qube of that name may be chosen.")
	r.press(fyne.KeyReturn, fyne.KeyDown, fyne.KeyReturn)
	r.answered()
	r.press(fyne.KeyBackspace, fyne.KeyReturn)
	r.answered(agent.Answer{Target: "vault"})
}

func TestAnExactNameIsMeant(t *testing.T) {
	request := filecopy()
	request.Targets = []string{"web", "web-mail", "@dispvm:web"}
	r := open(t, request, household()).look()
	r.write("WEB")
	r.press(fyne.KeyReturn)
	r.answered(agent.Answer{Target: "web"})
}

func TestEscDeniesFromEverywhere(t *testing.T) {
	for i, before := range []func(r *rig){
		func(r *rig) {},
		func(r *rig) { r.look() },
		func(r *rig) { r.look().write("vau") },
		func(r *rig) { r.window.Canvas().Focus(r.d.deny) },
		func(r *rig) { r.look(); r.press(fyne.KeyDown); r.window.Canvas().Focus(r.d.allow) },
		func(r *rig) { r.window.Canvas().Unfocus() },
	} {
		r := open(t, filecopy(), household())
		before(r)
		r.press(fyne.KeyEscape)
		if r.answered(agent.Answer{}); t.Failed() {
			t.Fatalf("case %d", i)
		}
	}
}

func TestEnterOnDenyDenies(t *testing.T) {
	request := filecopy()
	request.Default = "untrusted"
	r := open(t, request, household()).look()
	r.window.Canvas().Focus(r.d.deny)
	r.press(fyne.KeyReturn)
	r.answered(agent.Answer{})
}

func TestAClickChooses(t *testing.T) {
	r := open(t, filecopy(), household()).look()
	test.TapCanvas(r.window.Canvas(), fyne.CurrentApp().Driver().AbsolutePositionForObject(r.d.list.body).Add(fyne.NewPos(60, 1.5*rowHigh)))
	test.Tap(r.d.allow)
	r.answered(agent.Answer{Target: "personal"})
}

func TestTimeDenies(t *testing.T) {
	r := open(t, filecopy(), household()).look()
	r.pass(4*time.Minute + 35*time.Second)
	r.mustSay("Denied in 24 seconds")
	r.pass(23 * time.Second)
	r.mustSay("Denied in 1 second")
	r.answered()
	r.pass(time.Second)
	r.answered(agent.Answer{})
}

func TestWhoWaitsIsTold(t *testing.T) {
	r := open(t, filecopy(), household()).look()
	r.d.SetWaiting([]string{"personal"})
	r.mustSay("1 more request waits: personal")
	if r.d.denyAll.Visible() {
		t.Error("all of one is denied")
	}
	r.d.SetWaiting([]string{"personal", "work", "web", "personal", "mail", "vault"})
	r.mustSay("6 more requests wait: personal, work, web, …")
	test.Tap(r.d.denyAll)
	r.answered(agent.Answer{All: true})
}

// The list follows the qubes; the choice stays.
func TestTheListIsAlwaysRight(t *testing.T) {
	s := household()
	r := open(t, filecopy(), &dom0.Snapshot{}).look()
	if strings.Contains(r.says(), "halted") {
		t.Error("nobody has said that anything is halted")
	}
	r.press(fyne.KeyDown, fyne.KeyDown, fyne.KeyDown, fyne.KeyDown)
	r.d.SetSnapshot(s)
	if r.d.list.chosen != "vault" {
		t.Errorf("chosen %q", r.d.list.chosen)
	}
	r.mustSay("vault does not run")
	next := *s
	next.Qubes = slices.Clone(s.Qubes)
	for i := range next.Qubes {
		next.Qubes[i].State = dom0.Running
	}
	r.d.SetSnapshot(&next)
	if strings.Contains(r.says(), "does not run") {
		t.Error("vault runs by now")
	}
}

// Without the daemon the question's own icons tell the colours.
func TestColoursComeFromTheIconsToo(t *testing.T) {
	request := filecopy()
	request.Icons = map[string]string{"work": "appvm-blue", "vault": "appvm-purple", "debian-12": "templatevm-black", "@dispvm:dvm-online": "dispvm-red",
		"personal": "appvm-mauve", "untrusted": "x"}
	want := map[string]string{"vault": "purple square", "debian-12": "black ring", "@dispvm:dvm-online": "red dashed", "personal": " square", "untrusted": " square", "dom0": " shield"}
	for _, p := range parties(request, &dom0.Snapshot{}) {
		if got := p.label + " " + p.shape.String(); got != want[p.answer] {
			t.Errorf("%s is %s, want %s", p.answer, got, want[p.answer])
		}
		if p.label == "" && p.color != gray {
			t.Errorf("%s has the colour %06x", p.answer, p.color)
		}
	}
}

func TestAThousandTargets(t *testing.T) {
	request := filecopy()
	request.Targets = nil
	for i := range 1000 {
		request.Targets = append(request.Targets, fmt.Sprintf("qube-%03d", i))
	}
	request.Default = "qube-700"
	r := open(t, request, household()).look()
	if top := r.d.list.scroll.Offset.Y; top > 700*rowHigh || top+r.d.list.scroll.Size().Height < 701*rowHigh {
		t.Errorf("the default is out of sight: %v", top)
	}
	if n := len(test.WidgetRenderer(r.d.list.body).Objects()); n > 100 {
		t.Errorf("%d objects are drawn", n)
	}
	r.press(fyne.KeyPageUp, fyne.KeyPageUp, fyne.KeyUp)
	r.press(fyne.KeyReturn)
	if r.answers[0].Target >= "qube-700" || r.answers[0].Target < "qube-600" {
		t.Errorf("answered %+v", r.answers)
	}
}

// How the window looks: both themes, both languages, names as long as names
// may be.
func TestLooks(t *testing.T) {
	long := filecopy()
	long.Source, long.Service, long.Argument = "a-qube-whose-name-has-31-letter", "qubes.VMRootExec", "ls+-l+"+strings.Repeat("x", 99)
	long.Targets = append(long.Targets, "W"+strings.Repeat("w", 30))
	long.Rule = "30-user.policy:104: qubes.VMRootExec * " + strings.Repeat("a-qube-whose-name-has-31-letter ", 5)
	long.Icons = map[string]string{long.Source: "appvm-orange", long.Targets[6]: "appvm-green"}
	chosen := filecopy()
	chosen.Default = "vault"
	for _, look := range []struct {
		name    string
		request agent.Request
		then    func(r *rig)
	}{
		{"begin", filecopy(), func(r *rig) { r.d.Focused(true) }},
		{"chosen", chosen, func(r *rig) { r.look(); r.d.SetWaiting([]string{"work", "personal"}) }},
		{"long", long, func(r *rig) { r.look(); r.press(fyne.KeyDown, fyne.KeyDown) }},
		{"nobody", filecopy(), func(r *rig) { r.look().write("nowhere"); r.pass(4*time.Minute + 40*time.Second) }},
	} {
		for _, v := range []struct {
			name     string
			variant  fyne.ThemeVariant
			language string
		}{{"dark-en", fynetheme.VariantDark, "en"}, {"light-de", fynetheme.VariantLight, "de"}} {
			t.Run(look.name+"-"+v.name, func(t *testing.T) {
				r := openIn(t, look.request, household(), v.variant, v.language)
				look.then(r)
				test.AssertRendersToMarkup(t, look.name+"-"+v.name+".xml", r.window.Canvas())
			})
		}
	}
}

func TestToasts(t *testing.T) {
	a := test.NewTempApp(t)
	a.Settings().SetTheme(theme.New())
	opened, changed := 0, 0
	var ends []func()
	toasts := NewToasts(ToastOptions{Open: func(string) { opened++ }, Changed: func() { changed++ },
		Later: func(_ time.Duration, f func()) func() { ends = append(ends, f); return func() {} }})
	w := test.NewTempWindow(t, toasts.Content())
	notice := func(id uint32, text string) {
		toasts.Show(agent.ToToasts{ID: id, Notice: agent.Notice{Title: "Call denied", Text: text}})
		w.Resize(toasts.Size())
	}
	texts := func() (all []string) {
		for _, o := range test.LaidOutObjects(toasts.Content()) {
			if l, ok := o.(*widget.Label); ok && !l.TextStyle.Bold {
				all = append(all, l.Text)
			}
		}
		return all
	}
	notice(1, "one")
	notice(2, "two")
	notice(1, "one again")
	if got := texts(); !slices.Equal(got, []string{"one again", "two"}) {
		t.Errorf("%q", got)
	}
	for id := range uint32(4) {
		notice(10+id, fmt.Sprint("flood ", id))
	}
	if got := texts(); len(got) != maxToasts || got[0] != "flood 0" {
		t.Errorf("%q", got)
	}
	for _, end := range ends {
		end()
	}
	if !toasts.Empty() || changed == 0 {
		t.Errorf("%q are left", texts())
	}
	notice(20, "last")
	for _, o := range test.LaidOutObjects(toasts.Content()) {
		if b, ok := o.(*control.Button); ok && b.Text != "" {
			test.Tap(b)
		}
	}
	if opened != 1 || !toasts.Empty() {
		t.Errorf("opened %d times, empty %v", opened, toasts.Empty())
	}
}
