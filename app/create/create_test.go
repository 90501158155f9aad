package create

import (
	"testing"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/test"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/app/dom0"
	"cubicle/app/dom0/dom0test"
	"cubicle/theme"
)

func offer(templates ...string) *dom0.Snapshot {
	s := &dom0.Snapshot{Link: dom0.Connected, Labels: dom0test.Labels(), DefaultTemplate: "debian-12"}
	for _, name := range templates {
		s.Qubes = append(s.Qubes, dom0.Qube{ID: dom0.QubeID(name), Name: dom0.Name(name), Class: dom0.TemplateVM})
	}
	s.Qubes = append(s.Qubes, dom0.Qube{ID: "w", Name: "work", Class: dom0.AppVM})
	return s
}

// page opens the page in a window; wishes come out of the slice.
func page(t *testing.T, s *dom0.Snapshot, earlier Wish) (*Page, *[]Wish) {
	t.Helper()
	a := test.NewTempApp(t)
	a.Settings().SetTheme(theme.NewForced(fynetheme.VariantDark))
	p := New(s, earlier)
	var wishes []Wish
	p.OnCreate = func(w Wish) { wishes = append(wishes, w) }
	p.OnCancel = func() {}
	w := test.NewTempWindow(t, p.Content())
	w.Resize(fyne.NewSize(560, 420))
	return p, &wishes
}

func TestNameIsCheckedWhileItIsTyped(t *testing.T) {
	p, _ := page(t, offer("debian-12"), Wish{})
	hint := p.fault.Text
	for text, fault := range map[string]string{
		"1st":    "Must begin with a letter.",
		"a b":    "Only letters, digits, '_', '.' and '-' are allowed.",
		"work":   "There is a qube work already.",
		"none":   "Is a reserved word.",
		"hdd-dm": "Must not end in -dm.",
		"mail":   hint,
	} {
		p.name.SetText(text)
		if p.fault.Text != fault {
			t.Errorf("%q: the page says %q, want %q", text, p.fault.Text, fault)
		}
		if ok := text == "mail"; p.create.Disabled() == ok {
			t.Errorf("%q: Create enabled is %v", text, !p.create.Disabled())
		}
	}
}

func TestWishHasWhatWasChosen(t *testing.T) {
	p, wishes := page(t, offer("debian-12", "debian-12-office"), Wish{})
	test.Type(p.name, "mail")
	p.colours.FocusGained()
	for range 5 {
		p.colours.TypedKey(&fyne.KeyEvent{Name: fyne.KeyRight})
	}
	p.template.SetSelected("debian-12-office")
	p.start.SetChecked(false)
	test.Tap(p.create)
	want := Wish{Name: "mail", Kind: KindApp, Label: dom0test.Labels()[5], Template: "debian-12-office"}
	if len(*wishes) != 1 || (*wishes)[0] != want {
		t.Fatalf("the wish is %+v, want %+v", *wishes, want)
	}
	// A second press waits for the answer.
	p.name.OnSubmitted("mail")
	if len(*wishes) != 1 {
		t.Error("one page asked twice")
	}
	p.Fail("The pool is full.")
	if !p.failBox.Visible() || p.create.Disabled() {
		t.Error("a refusal does not show or blocks the page")
	}
}

func TestSizesAreReadInGB(t *testing.T) {
	for text, want := range map[string]uint64{"2.5": 2385 << 20, "2,5": 2385 << 20, " 1 ": 954 << 20, "": 0, "-1": 0, "NaN": 0, "1e9": 0, "lots": 0, "0": 0} {
		if got, ok := ParseGB(text); got != want || ok != (want > 0) {
			t.Errorf("%q is %d, %v; want %d", text, got, ok, want)
		}
	}
}

func TestSwatchesTakeTaps(t *testing.T) {
	p, _ := page(t, offer("debian-12"), Wish{})
	if p.colours.Selected != "red" {
		t.Errorf("begins with %q", p.colours.Selected)
	}
	test.TapAt(p.colours, fyne.NewPos(swatchStep*7+10, 12))
	if p.colours.Selected != "black" {
		t.Errorf("a tap on the last swatch chose %q", p.colours.Selected)
	}
	p.colours.TypedKey(&fyne.KeyEvent{Name: fyne.KeyHome})
	if p.colours.Selected != "red" {
		t.Errorf("Home chose %q", p.colours.Selected)
	}
}

func TestTemplatesComeAndGo(t *testing.T) {
	p, _ := page(t, offer(), Wish{})
	p.name.SetText("mail")
	if !p.create.Disabled() || p.tempHint.Text == "" {
		t.Error("without a template the page does not say so")
	}
	p.Update(offer("debian-12", "other"))
	if p.template.Selected != "debian-12" || p.create.Disabled() {
		t.Errorf("the default template is there, and %q is selected", p.template.Selected)
	}
	p.template.SetSelected("other")
	p.Update(offer("debian-12", "other"))
	if p.template.Selected != "other" {
		t.Error("news took the choice away")
	}
	p.Update(offer("debian-12"))
	if p.template.Selected != "debian-12" {
		t.Errorf("a template that is gone stays selected: %q", p.template.Selected)
	}
}

func TestATemplateHasNeitherColourNorStart(t *testing.T) {
	p, wishes := page(t, offer("debian-12"), Wish{})
	p.setKind(KindTemplate)
	if p.colours.Visible() || p.start.Visible() {
		t.Error("a template's page asks for a colour or a start")
	}
	test.Type(p.name, "debian-12-mail")
	test.Tap(p.create)
	if len(*wishes) != 1 || (*wishes)[0].Kind != KindTemplate || (*wishes)[0].StartNow {
		t.Errorf("the wish is %+v", *wishes)
	}
}

func TestAnEarlierWishComesBack(t *testing.T) {
	earlier := Wish{Name: "mail", Kind: KindApp, Label: dom0test.Labels()[3], Template: "other", StartNow: false}
	p, wishes := page(t, offer("debian-12", "other"), earlier)
	test.Tap(p.create)
	if len(*wishes) != 1 || (*wishes)[0] != earlier {
		t.Errorf("the wish came back as %+v", *wishes)
	}
}

func TestEachKindAsksForWhatItNeeds(t *testing.T) {
	for kind, want := range map[Kind]struct {
		class          dom0.Class
		colours, start bool
		property       string
	}{
		KindApp:        {dom0.AppVM, true, true, ""},
		KindDisposable: {dom0.AppVM, true, false, "True"},
		KindStandalone: {dom0.StandaloneVM, true, true, ""},
		KindTemplate:   {dom0.TemplateVM, false, false, ""},
	} {
		p, wishes := page(t, offer("debian-12"), Wish{})
		var drafts []dom0.Class
		p.OnDraft = func(class dom0.Class, _ string) { drafts = append(drafts, class) }
		for _, one := range p.kinds {
			if one.Title == kind.Title() {
				test.Tap(one)
			}
		}
		if p.colours.Visible() != want.colours || p.network.box.Visible() != want.colours || p.start.Visible() != want.start {
			t.Errorf("%s: colours %v, network %v, start %v", kind, p.colours.Visible(), p.network.box.Visible(), p.start.Visible())
		}
		if kind != KindTemplate && (len(drafts) == 0 || drafts[len(drafts)-1] != want.class) {
			t.Errorf("%s: the tables of %v were asked for", kind, drafts)
		}
		test.Type(p.name, "mail")
		test.Tap(p.create)
		if len(*wishes) != 1 {
			t.Fatalf("%s: %d wishes", kind, len(*wishes))
		}
		got := (*wishes)[0].Wanted()
		if got.Class != want.class || got.Template != "debian-12" || got.Properties["template_for_dispvms"] != want.property {
			t.Errorf("%s: %+v is wanted", kind, got)
		}
	}
}

func TestTheNetworkIsTheUsualOneOrAnotherOrNone(t *testing.T) {
	s := offer("debian-12")
	s.Qubes = append(s.Qubes, dom0.Qube{ID: "n", Name: "sys-net", Class: dom0.AppVM, ProvidesNetwork: true})
	for choice, want := range map[string]Network{
		"Default (sys-net)": {},
		"offline":           {Chosen: true},
		"sys-net":           {Chosen: true, From: "sys-net"},
	} {
		p, wishes := page(t, s, Wish{})
		p.Offer([]dom0.Property{{Name: "netvm", Value: "sys-net", Default: true}})
		test.Type(p.name, "mail")
		p.network.choice.SetSelected(choice)
		p.Update(s)
		test.Tap(p.create)
		if len(*wishes) != 1 || (*wishes)[0].Network != want {
			t.Errorf("%s: the wish is %+v", choice, *wishes)
			continue
		}
		netvm, set := (*wishes)[0].Wanted().Properties["netvm"]
		if set != want.Chosen || netvm != string(want.From) {
			t.Errorf("%s: netvm is %q, %v", choice, netvm, set)
		}
	}
	p, _ := page(t, s, Wish{Name: "mail", Kind: KindApp, Network: Network{Chosen: true, From: "sys-net"}})
	if p.network.choice.Selected != "sys-net" {
		t.Errorf("an earlier wish comes back as %q", p.network.choice.Selected)
	}
	p.Update(offer("debian-12"))
	if p.network.choice.Selected != p.network.choice.Options[0] {
		t.Errorf("a network that is gone stays selected: %q", p.network.choice.Selected)
	}
}
