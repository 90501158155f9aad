package confirm

import (
	"testing"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/test"

	"cubicle/app/control"
	"cubicle/app/tray"
	"cubicle/theme"
)

func ask(t *testing.T) (a *Asker, q tray.Question, done *int) {
	t.Helper()
	app := test.NewTempApp(t)
	app.Settings().SetTheme(theme.New())
	a = New(app)
	a.Spawn = func(f func()) { f() }
	done = new(int)
	return a, tray.Question{Key: "kill work", Title: "Kill work?", Text: "Kill work? What is not saved is lost.", Confirm: "Kill work", Do: func() { *done++ }}, done
}

func button(t *testing.T, w fyne.Window, word string) *control.Button {
	t.Helper()
	for _, o := range test.LaidOutObjects(w.Content()) {
		if b, ok := o.(*control.Button); ok && b.Text == word {
			return b
		}
	}
	t.Fatalf("there is no button %q", word)
	return nil
}

func TestOnlyTheButtonSaysYes(t *testing.T) {
	a, q, done := ask(t)
	w := a.Ask(q)
	focused, _ := w.Canvas().Focused().(*control.Button)
	if focused == nil || focused.Text != "Cancel" {
		t.Errorf("the focus is on %v", w.Canvas().Focused())
	}
	focused.TypedKey(&fyne.KeyEvent{Name: fyne.KeyReturn})
	w = a.Ask(q)
	button(t, w, "Kill work").TypedKey(&fyne.KeyEvent{Name: fyne.KeyEscape})
	if *done != 0 {
		t.Fatal("no was yes")
	}
	test.Tap(button(t, a.Ask(q), "Kill work"))
	if *done != 1 {
		t.Errorf("done %d times", *done)
	}
}

func TestAQuestionIsAskedOnceAtATime(t *testing.T) {
	a, q, _ := ask(t)
	first := a.Ask(q)
	if a.Ask(q) != first {
		t.Error("there are two windows")
	}
	first.Close()
	if a.Ask(q) == first {
		t.Error("a closed window was shown again")
	}
}
