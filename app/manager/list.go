package manager

import (
	"cmp"
	"slices"
	"strings"

	"cubicle/app/dom0"
	"cubicle/app/words"
)

// row is a qube with the job that runs on it, if any.
type row struct {
	qube dom0.Qube
	job  dom0.Job // zero ID: none

	// heading begins a family of rows; such a row has no qube.
	heading string
}

// group is one of the chips above the table.
type group int

const (
	groupAll group = iota
	groupRunning
	groupApps
	groupTemplates
	groupDisposables
	groupProblems
	groups int = iota
)

func (g group) title() string {
	return [...]string{words.T("All"), words.T("Running"), words.T("App qubes"), words.T("Templates"), words.T("Disposables"), words.T("Problems")}[g]
}

// passes reports whether there is such a qube only now and then.
func (g group) passes() bool { return g == groupDisposables || g == groupProblems }

func (g group) has(q *dom0.Qube) bool {
	switch g {
	case groupRunning:
		return isUp(q)
	case groupApps:
		return q.Class == dom0.AppVM || q.Class == dom0.StandaloneVM
	case groupTemplates:
		return q.Class == dom0.TemplateVM
	case groupDisposables:
		return q.Class == dom0.DispVM
	case groupProblems:
		return isBroken(q)
	}
	return true
}

// matches reports whether every word of the filter is in the qube's name,
// label, template or netvm, or begins the word for its state.
func matches(q *dom0.Qube, query []string) bool {
	for _, w := range query {
		switch {
		case contains(q.Name, w), contains(q.Template, w), contains(q.NetVM, w):
		case strings.HasPrefix(q.Label.Name, w), strings.HasPrefix(strings.ToLower(words.Label(q.Label.Name)), w), strings.HasPrefix(faceOf(q).word, w):
		default:
			return false
		}
	}
	return true
}

// contains compares without case; word is in lower case already.
func contains[T ~string](text T, word string) bool {
	return strings.Contains(strings.ToLower(string(text)), word)
}

// order is the column by which the table is sorted.
type order struct {
	by   columnKey
	down bool
}

// view picks and sorts what the table shows. It never changes s.
func view(s *dom0.Snapshot, g group, filter string, o order) []row {
	query := strings.Fields(strings.ToLower(filter))
	rows := make([]row, 0, len(s.Qubes))
	for i := range s.Qubes {
		q := &s.Qubes[i]
		if g.has(q) && matches(q, query) {
			rows = append(rows, row{qube: *q, job: jobOn(s, q)})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return o.compare(&a, &b) })
	return rows
}

// jobOn is the job that q is busy with, or none. A program that runs in a
// running qube is no business of the qube's: its job may last for days.
func jobOn(s *dom0.Snapshot, q *dom0.Qube) dom0.Job {
	for _, j := range s.Jobs {
		if j.State != dom0.JobRunning || j.Qube != q.Name {
			continue
		}
		if j.Kind != "app" && j.Kind != "run" || q.State != dom0.Running {
			return j
		}
	}
	return dom0.Job{}
}

func (o order) compare(a, b *row) int {
	by := 0
	x, y := &a.qube, &b.qube
	// dom0 is no qube among others: it stands first in every order.
	if first := (x.Class == dom0.AdminVM); first != (y.Class == dom0.AdminVM) {
		if first {
			return -1
		}
		return 1
	}
	switch o.by {
	case colState:
		by = cmp.Compare(rank(x), rank(y))
	case colTemplate:
		by = cmp.Compare(x.Template, y.Template)
	case colNetwork:
		by = cmp.Compare(x.NetVM, y.NetVM)
	case colCPU:
		by = cmp.Compare(x.CPU, y.CPU)
	case colMemory:
		by = cmp.Compare(x.MemoryUsed, y.MemoryUsed)
	case colDisk:
		by = cmp.Compare(x.Disk, y.Disk)
	case colIsolation:
		by = strings.Compare(x.Isolation, y.Isolation)
	case colName:
		by = byName(x.Name, y.Name)
	}
	if o.down {
		by = -by
	}
	return cmp.Or(by, byName(x.Name, y.Name))
}

func byName(a, b dom0.Name) int {
	return cmp.Or(strings.Compare(strings.ToLower(string(a)), strings.ToLower(string(b))), cmp.Compare(a, b))
}

// rank sorts states: trouble first, then what runs, then the rest.
func rank(q *dom0.Qube) int {
	switch {
	case isBroken(q):
		return 0
	case q.State == dom0.Transient:
		return 1
	case q.State == dom0.Running:
		return 2
	case q.State == dom0.Halted:
		return 5
	case q.State == dom0.Paused:
		return 3
	}
	return 4
}

// counts is how many qubes each group has.
func counts(s *dom0.Snapshot) (n [groups]int) {
	for i := range s.Qubes {
		for g := range n {
			if group(g).has(&s.Qubes[i]) {
				n[g]++
			}
		}
	}
	return n
}
