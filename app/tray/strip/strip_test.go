package strip

import (
	"fmt"
	"image"
	"image/color"
	"slices"
	"testing"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/test"

	"cubicle/app/control"
	"cubicle/app/tray/notifier"
	"cubicle/theme"
	"cubicle/theme/label"
)

func begin(t *testing.T) {
	t.Helper()
	test.NewTempApp(t).Settings().SetTheme(theme.New())
}

func menu() []notifier.Entry {
	return []notifier.Entry{
		{Key: "head", Label: "head", Disabled: true},
		{Key: "line", Separator: true},
		{Key: "a", Label: "a", Children: []notifier.Entry{{Key: "x", Label: "x of a"}, {Key: "y", Label: "y of a"}}},
		{Key: "b", Label: "b", Children: []notifier.Entry{{Key: "x", Label: "x of b"}}},
		{Key: "c", Label: "c"},
	}
}

func press(s *Sheet, keys ...fyne.KeyName) {
	for _, k := range keys {
		s.TypedKey(&fyne.KeyEvent{Name: k})
	}
}

func TestSheetByKeyboard(t *testing.T) {
	begin(t)
	s := NewSheet()
	var picked []string
	closed, resized := 0, 0
	s.OnPick = func(e notifier.Entry) { picked = append(picked, e.Label) }
	s.OnClose = func() { closed++ }
	s.OnResize = func() { resized++ }
	s.Begin(menu())
	w := test.NewTempWindow(t, s)
	w.Resize(s.MinSize())
	small := s.MinSize()
	press(s, fyne.KeyDown, fyne.KeyReturn) // opens a
	if want := []string{"head", "", "a", "x of a", "y of a", "b", "c"}; !slices.Equal(s.Lines(), want) {
		t.Fatalf("%q", s.Lines())
	}
	if s.MinSize().Height <= small.Height || resized < 2 {
		t.Error("the sheet did not grow")
	}
	press(s, fyne.KeyDown, fyne.KeyDown, fyne.KeyReturn)
	press(s, fyne.KeyLeft) // to a, closed
	if len(s.Lines()) != 5 {
		t.Errorf("%q", s.Lines())
	}
	press(s, fyne.KeyRight, fyne.KeyUp, fyne.KeyReturn) // round the top: c
	press(s, fyne.KeyUp, fyne.KeySpace)                 // b opens, a closes
	if want := []string{"head", "", "a", "b", "x of b", "c"}; !slices.Equal(s.Lines(), want) {
		t.Errorf("%q", s.Lines())
	}
	press(s, fyne.KeyHome, fyne.KeyEnd, fyne.KeyReturn, fyne.KeyEscape)
	if want := []string{"y of a", "c", "c"}; !slices.Equal(picked, want) || closed != 1 {
		t.Errorf("picked %q, closed %d times", picked, closed)
	}
}

func TestSheetKeepsItsPlaceWhenTheMenuChanges(t *testing.T) {
	begin(t)
	s := NewSheet()
	s.Begin(menu())
	var picked string
	s.OnPick = func(e notifier.Entry) { picked = e.Label }
	press(s, fyne.KeyDown, fyne.KeyReturn, fyne.KeyDown) // x of a
	changed := append([]notifier.Entry{{Key: "new", Label: "new"}}, menu()...)
	changed[3].Children[0].Label = "x changed"
	s.Set(changed)
	press(s, fyne.KeyReturn)
	if picked != "x changed" {
		t.Errorf("picked %q of %q", picked, s.Lines())
	}
	s.Set(changed[:2])
	press(s, fyne.KeyReturn) // what had the focus is gone
	s.Begin(nil)
	press(s, fyne.KeyDown, fyne.KeyUp, fyne.KeyReturn, fyne.KeyLeft, fyne.KeyRight)
	if picked != "x changed" {
		t.Errorf("picked %q", picked)
	}
}

func TestDisabledLinesDoNothing(t *testing.T) {
	begin(t)
	s := NewSheet()
	s.OnPick = func(e notifier.Entry) { t.Errorf("picked %q", e.Label) }
	s.Begin(menu()[:2])
	test.Tap(s.rows[0])
	test.Tap(s.rows[1])
	press(s, fyne.KeyDown, fyne.KeyReturn)
}

func TestBarPutsWhatDoesNotFitBehindANumber(t *testing.T) {
	begin(t)
	b := NewBar()
	more := 0
	b.OnMore = func() { more++ }
	var chips []Piece
	opened := ""
	for i := range 40 {
		key := fmt.Sprint("qube ", i)
		chips = append(chips, Piece{Key: key, Text: fmt.Sprint("qube-number-", i), Icon: control.LabelIcon(label.Square, 0xcc0000), OnOpen: func() { opened = key }})
	}
	icons := []Piece{{Key: "icon", Icon: control.Icon("info")}}
	b.Fill(chips[:2], icons)
	w := test.NewTempWindow(t, b)
	w.SetPadded(false)
	w.Resize(fyne.NewSize(600, Height))
	if _, _, ok := b.Anchor(MoreKey); ok {
		t.Error("two chips do not fit")
	}
	b.Fill(chips, icons)
	seen := 0
	edge := float32(0)
	for _, c := range chips {
		if pos, size, ok := b.Anchor(c.Key); ok {
			seen++
			edge = max(edge, pos.X+size.Width)
		}
	}
	pos, size, ok := b.Anchor(MoreKey)
	icon, _, iconOK := b.Anchor("icon")
	if !ok || !iconOK || pos.X < edge || pos.X+size.Width > icon.X || b.more.piece.Text != fmt.Sprint("+", 40-seen) {
		t.Errorf("%d chips up to %v, then %q at %v, the icon at %v", seen, edge, b.more.piece.Text, pos, icon)
	}
	test.Tap(b.more)
	test.Tap(b.buttons["qube 0"])
	if more != 1 || opened != "qube 0" {
		t.Errorf("more %d, opened %q", more, opened)
	}
	b.buttons["qube 0"].TypedKey(&fyne.KeyEvent{Name: fyne.KeyReturn})
}

func TestIconsOfOthers(t *testing.T) {
	begin(t)
	img := image.NewNRGBA(image.Rect(0, 0, 4, 4))
	img.Set(1, 1, color.White)
	for _, i := range []notifier.Icon{{}, {Image: img}, {File: []byte("<svg/>"), Name: "x.svg"}} {
		if r := resource(notifier.Shown{Icon: i}); r == nil || len(r.Content()) == 0 {
			t.Errorf("nothing is shown for %+v", i)
		}
	}
	if r := pngResource([]byte("no picture")); r != nil {
		t.Error("what is no picture is shown")
	}
}
