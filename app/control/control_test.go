package control

import (
	"testing"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/test"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/theme/label"
)

func key(f fyne.Focusable, names ...fyne.KeyName) {
	for _, n := range names {
		f.TypedKey(&fyne.KeyEvent{Name: n})
	}
}

func TestEveryWidgetLeavesByEsc(t *testing.T) {
	test.NewTempApp(t)
	left := 0
	leave := func() { left++ }
	button, entry, choice, check, chip := NewButton("b", nil, nil), NewEntry(""), NewSelect([]string{"a"}, nil), NewCheck("c", nil), NewChip("d", func() {})
	button.OnEscape, entry.OnEscape, choice.OnEscape, check.OnEscape, chip.OnEscape = leave, leave, leave, leave, leave
	for _, f := range []fyne.Focusable{button, entry, choice, check, chip} {
		key(f, fyne.KeyEscape)
	}
	if left != 5 {
		t.Errorf("Esc left %d of 5 widgets", left)
	}
}

func TestEnterPressesAButtonUnlessItIsDisabled(t *testing.T) {
	test.NewTempApp(t)
	n := 0
	b := NewButton("b", nil, func() { n++ })
	key(b, fyne.KeyReturn, fyne.KeyEnter, fyne.KeySpace)
	if n != 3 {
		t.Errorf("pressed %d times, want 3", n)
	}
	b.Able(false)
	key(b, fyne.KeyReturn)
	if n != 3 || !b.Disabled() {
		t.Error("a disabled button was pressed")
	}
	b.Able(true)
	if b.Disabled() {
		t.Error("the button stays disabled")
	}
}

func TestEntryLendsItsKeys(t *testing.T) {
	test.NewTempApp(t)
	e := NewEntry("")
	var seen []fyne.KeyName
	e.OnKey = func(k fyne.KeyName) bool { seen = append(seen, k); return k == fyne.KeyBackspace }
	shortcuts := 0
	e.OnShortcut = func(fyne.Shortcut) { shortcuts++ }
	test.Type(e, "ab")
	key(e, fyne.KeyBackspace, fyne.KeyHome)
	e.TypedRune('c')
	if e.Text != "cab" || len(seen) != 2 {
		t.Errorf("text %q after keys %v; want the backspace kept and Home passed on", e.Text, seen)
	}
	e.TypedShortcut(&desktop.CustomShortcut{KeyName: fyne.KeyN, Modifier: fyne.KeyModifierControl})
	e.TypedShortcut(&fyne.ShortcutSelectAll{})
	if shortcuts != 1 || e.SelectedText() != "cab" {
		t.Errorf("%d shortcuts lent, %q selected", shortcuts, e.SelectedText())
	}
}

func TestChipRedrawsItsNumber(t *testing.T) {
	test.NewTempApp(t)
	taps := 0
	c := NewChip("All", func() { taps++ })
	narrow := c.MinSize().Width
	c.Set(12, true)
	if c.MinSize().Width <= narrow {
		t.Error("a number takes no room")
	}
	test.Tap(c)
	key(c, fyne.KeySpace, fyne.KeyReturn)
	if taps != 3 {
		t.Errorf("%d taps, want 3", taps)
	}
}

func TestIconsAreThere(t *testing.T) {
	test.NewTempApp(t)
	for _, name := range []string{"plus", "play", "stop", "pause", "terminal", "more", "search", "close", "trash", "clone", "kill", "run", "warning", "info", "up", "down", "unplugged", "shield"} {
		if Icon(name).Name() == fynetheme.BrokenImageIcon().Name() {
			t.Errorf("the icon %s is missing", name)
		}
	}
	if Icon("no-such-icon").Name() != fynetheme.BrokenImageIcon().Name() {
		t.Error("a missing icon is not shown as one")
	}
	if LabelIcon(label.Ring, 0).Name() == LabelIcon(label.Square, 0).Name() {
		t.Error("two shapes share a name")
	}
}

func TestBarStaysWithinItself(t *testing.T) {
	test.NewTempApp(t)
	b := NewBar()
	b.Resize(fyne.NewSize(100, 6))
	r := test.WidgetRenderer(b).(*barRenderer)
	for value, want := range map[float64]float32{-1: barHigh, 0: barHigh, 0.5: 50, 1: 100, 7: 100} {
		b.Set(value)
		if got := r.fill.Size().Width; got != want {
			t.Errorf("%v fills %v, want %v", value, got, want)
		}
	}
}
