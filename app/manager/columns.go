package manager

import (
	"fmt"

	"fyne.io/fyne/v2"

	"cubicle/app/dom0"
	"cubicle/app/words"
)

// columnKey names a column in preferences.
type columnKey string

// The columns, left to right.
const (
	colName      columnKey = "name"
	colState     columnKey = "state"
	colTemplate  columnKey = "template"
	colNetwork   columnKey = "network"
	colCPU       columnKey = "cpu"
	colMemory    columnKey = "memory"
	colDisk      columnKey = "disk"
	colIsolation columnKey = "isolation"
)

// column describes one column.
type column struct {
	key    columnKey
	title  string
	figure bool    // set right-aligned, sorted biggest first
	flex   float32 // share of the space that is left over
	sample string  // the widest text that the column must hold
	yield  int     // columns with a higher number are left out first when space is short; 0: never
}

func columns() []column {
	return []column{
		{key: colName, title: words.T("Name"), flex: 3, sample: "untrusted-web"},
		{key: colState, title: words.T("State"), flex: 1, sample: words.T("shutting down")},
		{key: colTemplate, title: words.T("Template"), flex: 2, sample: "debian-12-min", yield: 2},
		{key: colNetwork, title: words.T("Network"), flex: 2, sample: "sys-firewall", yield: 3},
		{key: colCPU, title: words.T("CPU"), figure: true, sample: "1000 %", yield: 1},
		{key: colMemory, title: words.T("Memory"), figure: true, sample: "9999 MB", yield: 4},
		{key: colDisk, title: words.T("Disk"), figure: true, sample: "9999 MB", yield: 5},
		{key: colIsolation, title: words.T("Isolation"), sample: "namespaces", yield: 1},
	}
}

// Measures of the table, in Fyne's units.
const (
	gap       = 16 // between columns
	margin    = 16 // left and right of a row
	iconSize  = 18
	iconGap   = 10 // between an icon and its text
	rowHeight = 36
	badgePad  = 8
	nameMax   = 360 // a longer name is cut in the middle
	sparkBars = 8
	sparkBar  = 3 // width of a bar, with a gap of 1 after it
	sparkWide = sparkBars * (sparkBar + 1)
)

// text is what a cell of q shows; empty stands for "nothing to tell".
func (c column) text(q *dom0.Qube) string {
	switch c.key {
	case colName:
		return string(q.Name)
	case colState:
		return faceOf(q).word
	case colTemplate:
		switch {
		case q.Class == dom0.TemplateVM && q.Updates:
			return words.T("(template) · updates")
		case q.Class == dom0.TemplateVM:
			return words.T("(template)")
		case q.Outdated:
			return words.T("%s (old)", q.Template)
		}
		return string(q.Template)
	case colNetwork:
		switch {
		case q.Class == dom0.AdminVM:
			return ""
		case q.NetVM == "":
			return words.T("offline")
		}
		return string(q.NetVM)
	case colCPU:
		if isUp(q) {
			return fmt.Sprintf("%.0f %%", q.CPU)
		}
		return "–"
	case colMemory:
		if isUp(q) && q.MemoryUsed > 0 {
			return words.Memory(q.MemoryUsed)
		}
		return "–"
	case colDisk:
		if q.Disk > 0 {
			return size(q.Disk)
		}
		return "–"
	case colIsolation:
		return q.Isolation
	}
	return ""
}

// extra is what stands in the cell besides its text.
func (c column) extra() float32 {
	switch c.key {
	case colName, colState:
		return iconSize + iconGap
	case colCPU:
		return sparkWide + 8
	case colIsolation:
		return 2 * badgePad
	}
	return 0
}

// place is where a column stands; a width of 0 means that it is left out.
type place struct{ x, width float32 }

// arrange shares width among the columns. wide holds, per column, the width
// of its widest text as measured.
func arrange(cols []column, hidden map[columnKey]bool, wide []float32, width float32) []place {
	need := func(i int) float32 { return wide[i] + cols[i].extra() }
	shown := make([]bool, len(cols))
	total := float32(2*margin - gap)
	for i := range cols {
		shown[i] = !hidden[cols[i].key]
		if shown[i] {
			total += need(i) + gap
		}
	}
	for total > width {
		worst := -1
		for i, c := range cols {
			if shown[i] && c.yield > 0 && (worst < 0 || c.yield > cols[worst].yield) {
				worst = i
			}
		}
		if worst < 0 {
			break
		}
		shown[worst] = false
		total -= need(worst) + gap
	}
	flex := float32(0)
	for i, c := range cols {
		if shown[i] {
			flex += c.flex
		}
	}
	spare := width - total
	places := make([]place, len(cols))
	x := float32(margin)
	for i, c := range cols {
		if !shown[i] {
			continue
		}
		w := need(i)
		if flex > 0 {
			w += spare * c.flex / flex // negative spare shrinks what is flexible
		}
		w = max(w, 48)
		places[i] = place{x, w}
		x += w + gap
	}
	return places
}

// cut shortens text in the middle until it fits width.
func cut(text string, width, textSize float32, style fyne.TextStyle) string {
	measure := func(s string) float32 { return fyne.MeasureText(s, textSize, style).Width }
	if text == "" || measure(text) <= width {
		return text
	}
	runes := []rune(text)
	low, high := 0, len(runes)-1 // how many runes may stay
	for low < high {
		keep := (low + high + 1) / 2
		if measure(shortened(runes, keep)) <= width {
			low = keep
		} else {
			high = keep - 1
		}
	}
	return shortened(runes, low)
}

func shortened(runes []rune, keep int) string {
	head := (keep + 1) / 2
	return string(runes[:head]) + "…" + string(runes[len(runes)-(keep-head):])
}
