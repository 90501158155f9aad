package manager

import (
	"testing"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/test"

	"cubicle/app/dom0"
	"cubicle/app/words"
)

func TestSizesHaveThreeDigits(t *testing.T) {
	for bytes, want := range map[uint64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 304_000_000: "304 MB", 999_600_000: "1.0 GB", 2_130_000_000: "2.1 GB",
		88_000_000_000: "88 GB", 1 << 63: "9.2 EB",
	} {
		if got := size(bytes); got != want {
			t.Errorf("size(%d) = %q, want %q", bytes, got, want)
		}
	}
	for bytes, want := range map[uint64]string{400 << 20: "400 MB", 16 << 30: "16.0 GB"} {
		if got := words.Memory(bytes); got != want {
			t.Errorf("words.Memory(%d) = %q, want %q", bytes, got, want)
		}
	}
}

func TestMomentsOfOtherDaysHaveADate(t *testing.T) {
	if got := since(noon.Add(-time.Hour), noon); got != "11:00" {
		t.Errorf("today: %s", got)
	}
	if got := since(noon.Add(-24*time.Hour), noon); got != "13 Mar 12:00" {
		t.Errorf("yesterday: %s", got)
	}
}

func TestLongTextsAreCutInTheMiddle(t *testing.T) {
	test.NewTempApp(t)
	const long = "a-qube-with-a-name-of-31-letters"
	full := fyne.MeasureText(long, 14, fyne.TextStyle{}).Width
	if got := cut(long, full, 14, fyne.TextStyle{}); got != long {
		t.Errorf("what fits was cut: %s", got)
	}
	got := cut(long, full/2, 14, fyne.TextStyle{})
	if fyne.MeasureText(got, 14, fyne.TextStyle{}).Width > full/2 || got[0] != 'a' || got[len(got)-1] != 's' {
		t.Errorf("cut to %q", got)
	}
	if got := cut(long, 0, 14, fyne.TextStyle{}); got != "…" {
		t.Errorf("no room at all gives %q", got)
	}
}

// Whatever the width, columns stand side by side and nothing sticks out.
func TestColumnsNeverOverlap(t *testing.T) {
	cols := columns()
	wide := make([]float32, len(cols))
	for i := range wide {
		wide[i] = 90
	}
	for width := float32(500); width < 2000; width += 37 {
		places := arrange(cols, nil, wide, width)
		end := float32(0)
		for i, p := range places {
			if p.width == 0 {
				if cols[i].yield == 0 {
					t.Errorf("at %v the column %s is left out", width, cols[i].key)
				}
				continue
			}
			if p.x < end {
				t.Errorf("at %v the column %s begins at %v, before %v", width, cols[i].key, p.x, end)
			}
			end = p.x + p.width
		}
		if end > width-margin+0.5 {
			t.Errorf("at %v the columns end at %v", width, end)
		}
	}
}

func TestEveryStateHasAWordAndAShapeOfItsOwn(t *testing.T) {
	shapes := map[string]string{}
	for _, s := range []dom0.State{dom0.Halted, dom0.Transient, dom0.Running, dom0.Paused, dom0.Halting, dom0.Crashed} {
		face := faceOf(&dom0.Qube{State: s})
		if other, twice := shapes[face.icon]; twice {
			t.Errorf("%s looks like %s", s, other)
		}
		shapes[face.icon] = string(s)
	}
	if faceOf(&dom0.Qube{State: dom0.Halted, Problem: "x"}).word != "broken" {
		t.Error("a broken qube does not look broken")
	}
}

func TestNamesInASentence(t *testing.T) {
	qubes := []dom0.Qube{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}
	for n, want := range map[int]string{1: "a", 2: "a and b", 3: "a, b and c", 4: "4 qubes"} {
		if got := names(qubes[:n]); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
