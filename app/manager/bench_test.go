package manager

import (
	"testing"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/test"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/dom0"
)

// BenchmarkFilter types a letter into the filter over 500 qubes and takes it
// back: two lists, laid out and ready to be painted.
func BenchmarkFilter(b *testing.B) {
	r := open(b, crowd(500), fynetheme.VariantDark)
	for b.Loop() {
		r.m.filter.SetText("4")
		r.m.filter.SetText("")
	}
}

// BenchmarkFiguresOf500 shows a snapshot in which every running qube's
// figures changed.
func BenchmarkFiguresOf500(b *testing.B) {
	r := open(b, crowd(500), fynetheme.VariantDark)
	n := 0
	for b.Loop() {
		n++
		r.fake.Edit(func(s *dom0.Snapshot) {
			for i := range s.Qubes {
				if isUp(&s.Qubes[i]) {
					s.Qubes[i].CPU = float64(n % 90)
				}
			}
		})
	}
}

// BenchmarkFirstPaint makes a window of 200 qubes and paints it once in
// software; x-empty is how often a window of Fyne's own with one label could
// be made and painted in that time.
func BenchmarkFirstPaint(b *testing.B) {
	s := crowd(200)
	var own, empty time.Duration
	for b.Loop() {
		began := time.Now()
		r := open(b, s, fynetheme.VariantDark)
		if r.canvas.Capture().Bounds().Empty() {
			b.Fatal("nothing was painted")
		}
		own += time.Since(began)

		began = time.Now()
		w := test.NewTempApp(b).NewWindow("empty")
		w.SetContent(widget.NewLabel("empty"))
		w.Resize(fyne.NewSize(1040, 600))
		if w.Canvas().Capture().Bounds().Empty() {
			b.Fatal("nothing was painted")
		}
		empty += time.Since(began)
		w.Close()
	}
	b.ReportMetric(float64(own)/float64(empty), "x-empty")
}

// Only what is in sight costs: a table of 500 has no more lines than fit.
func TestOnlyRowsInSightAreDrawn(t *testing.T) {
	r := dark(t, crowd(500))
	renderer := test.WidgetRenderer(r.m.table.body).(*bodyRenderer)
	if got, most := len(renderer.lines), 600/rowHeight+2; got == 0 || got > most {
		t.Errorf("%d lines for 500 qubes in a window of 600, want at most %d", got, most)
	}
	r.press("End")
	last := r.m.table.rows[499].qube.Name
	found := false
	for _, l := range renderer.lines {
		found = found || l.cells[0].Text == string(last) && l.cells[0].Visible()
	}
	if !found {
		t.Errorf("after End %s is not in sight", last)
	}
}
