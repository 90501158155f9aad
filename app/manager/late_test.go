package manager

import (
	"testing"

	"fyne.io/fyne/v2/test"

	"cubicle/app/dom0"
	"cubicle/app/dom0/dom0test"
	"cubicle/theme"
)

// busy changes the state just before somebody begins to watch.
type busy struct {
	*dom0test.Fake
	change func(*dom0.Snapshot)
}

func (b busy) Watch(notify func(*dom0.Snapshot)) (stop func()) {
	b.Edit(b.change)
	return b.Fake.Watch(notify)
}

// A state that arrives while the window is being made is shown.
func TestStateThatCameWhileTheWindowWasMade(t *testing.T) {
	a := test.NewTempApp(t)
	a.Settings().SetTheme(theme.New())
	w := test.NewTempWindow(t, nil)
	empty := dom0.Snapshot{Link: dom0.Connecting}
	client := busy{dom0test.NewFake(empty), func(s *dom0.Snapshot) { *s = crowd(3) }}
	m := New(client, Options{Canvas: w.Canvas(), Preferences: a.Preferences(), UI: func(f func()) { f() }})
	t.Cleanup(m.Close)
	if got := len(m.table.rows); got != len(crowd(3).Qubes) {
		t.Errorf("%d rows are shown", got)
	}
}
