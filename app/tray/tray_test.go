package tray

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"cubicle/app/dom0"
	"cubicle/app/dom0/dom0test"
	"cubicle/app/tray/notifier"
	"cubicle/app/words"
	"cubicle/theme/label"
)

// rig is a tray over a daemon in memory.
type rig struct {
	t         *testing.T
	fake      *dom0test.Fake
	tray      *Tray
	view      View
	questions []Question
	notices   []string
	opened    error
}

func open(t *testing.T, qubes ...dom0.Qube) *rig {
	t.Helper()
	r := &rig{t: t, fake: dom0test.NewFake(dom0.Snapshot{Link: dom0.Connected, Qubes: qubes})}
	r.tray = New(r.fake, Options{
		Show:        func(v View) { r.view = v },
		Ask:         func(q Question) { r.questions = append(r.questions, q) },
		Notify:      func(title, text string) { r.notices = append(r.notices, title+": "+text) },
		OpenManager: func() error { return r.opened },
	})
	t.Cleanup(r.tray.Close)
	return r
}

func named(name string, state dom0.State) dom0.Qube {
	q := dom0.Qube{ID: dom0.QubeID("id-" + name), Name: dom0.Name(name), Class: dom0.AppVM, State: state, Label: dom0test.Labels()[2], XID: -1}
	if state.IsUp() {
		q.MemoryUsed = 212 << 20
	}
	return q
}

// lines writes a menu as people see it.
func lines(entries []notifier.Entry, indent string) string {
	var out strings.Builder
	for _, e := range entries {
		switch {
		case e.Separator:
			out.WriteString(indent + "---\n")
		case e.Disabled:
			out.WriteString(indent + "(" + e.Label + ")\n")
		default:
			out.WriteString(indent + e.Label + "\n")
		}
		out.WriteString(lines(e.Children, indent+"  "))
	}
	return out.String()
}

func (r *rig) pick(path ...string) {
	r.t.Helper()
	entries := r.view.Menu
	for i, word := range path {
		at := slices.IndexFunc(entries, func(e notifier.Entry) bool { return strings.HasPrefix(e.Label, word) })
		if at < 0 {
			r.t.Fatalf("there is no %q in\n%s", word, lines(entries, ""))
		}
		if i == len(path)-1 {
			entries[at].Activate()
			return
		}
		entries = entries[at].Children
	}
}

func TestMenuShowsWhatRuns(t *testing.T) {
	dom := named("dom0", dom0.Running)
	dom.Class = dom0.AdminVM
	template := named("debian-12", dom0.Running)
	template.Class = dom0.TemplateVM
	r := open(t, dom, template, named("paused", dom0.Paused), named("start", dom0.Transient), named("vault", dom0.Halted), named("work", dom0.Running))
	const want = `debian-12  ·  running, 212 MB
  Terminal
  Pause
  ---
  Shut down
  Kill …
paused  ·  paused, 212 MB
  (Terminal)
  Resume
  ---
  (Shut down)
  Kill …
start  ·  starting
  (Terminal)
  (Pause)
  ---
  Shut down
  Kill …
work  ·  running, 212 MB
  Terminal
  Pause
  ---
  Shut down
  Kill …
---
Open Qube Manager
`
	if got := lines(r.view.Menu, ""); got != want {
		t.Errorf("the menu is\n%s", got)
	}
	if r.view.Chips[0].Shape != label.Ring || r.view.Chips[3].Shape != label.Square {
		t.Errorf("%+v", r.view.Chips)
	}
	if r.view.Tip != "Running: debian-12, paused, start, work" {
		t.Error(r.view.Tip)
	}
}

func TestActionsReachTheDaemon(t *testing.T) {
	r := open(t, named("lazy", dom0.Paused), named("work", dom0.Running))
	r.pick("work", "Terminal")
	r.pick("work", "Pause")
	r.pick("work", "Shut down")
	r.pick("lazy", "Resume")
	want := []string{"app work qubes-run-terminal", "pause work", "shutdown work", "unpause lazy"}
	if got := r.fake.Calls(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestKillAsksAndNamesTheLoss(t *testing.T) {
	r := open(t, named("work", dom0.Running))
	r.pick("work", "Kill …")
	if calls := r.fake.Calls(); len(calls) != 0 {
		t.Fatalf("%q before the answer", calls)
	}
	q := r.questions[0]
	if !strings.Contains(q.Text, "Kill work?") || !strings.Contains(q.Text, "lost") || q.Confirm != "Kill work" {
		t.Errorf("%+v", q)
	}
	q.Do()
	if got := r.fake.Calls(); !slices.Equal(got, []string{"kill work"}) {
		t.Errorf("%q", got)
	}
}

func TestFailuresAreTold(t *testing.T) {
	r := open(t, named("work", dom0.Running))
	r.fake.Refuse("shutdown", &dom0.Error{Op: "shutdown", Subject: "work", Reason: "it is used by sys-net"})
	r.pick("work", "Shut down")
	r.fake.Refuse("shutdown", nil)
	r.pick("work", "Pause") // job1: fails later
	r.fake.PutJob(dom0.Job{ID: "job1", Kind: "pause", Qube: "work", State: dom0.JobRunning})
	r.fake.PutJob(dom0.Job{ID: "job1", Kind: "pause", Qube: "work", State: dom0.JobFailed, Error: "the freezer hangs"})
	r.fake.PutJob(dom0.Job{ID: "job1", Kind: "pause", Qube: "work", State: dom0.JobFailed, Error: "the freezer hangs"})
	r.fake.PutJob(dom0.Job{ID: "else", Kind: "start", Qube: "vault", State: dom0.JobFailed, Error: "asked for elsewhere"})
	// Known to have failed before the action returns.
	r.fake.PutJob(dom0.Job{ID: "job2", Kind: "app", Qube: "work", State: dom0.JobFailed, Error: ""})
	r.pick("work", "Terminal")
	r.opened = errors.New("no such file")
	r.pick("Open Qube Manager")
	want := []string{
		"Could not shut down work: It is used by sys-net.",
		"Could not pause work: The freezer hangs.",
		"Could not open an application in work: The daemon gave no reason.",
		"Could not open the Qube Manager: no such file",
	}
	if !slices.Equal(r.notices, want) {
		t.Errorf("%q, want %q", r.notices, want)
	}
}

func TestTheTraySpeaksGerman(t *testing.T) {
	words.Use("de")
	t.Cleanup(func() { words.Use("en") })
	r := open(t, named("work", dom0.Running))
	const want = `work  ·  läuft, 212 MB
  Terminal
  Anhalten
  ---
  Herunterfahren
  Sofort beenden …
---
Qube-Manager öffnen
`
	if got := lines(r.view.Menu, ""); got != want {
		t.Errorf("the menu is\n%s", got)
	}
	r.fake.Refuse("pause", &dom0.Error{Op: "pause", Subject: "work", Name: "QubesVMNotRunningError", Reason: "work is off"})
	r.pick("work", "Anhalten")
	if want := []string{"work ließ sich nicht anhalten: Der Qube läuft nicht. (Work is off.)"}; !slices.Equal(r.notices, want) {
		t.Errorf("%q, want %q", r.notices, want)
	}
}

func TestNothingCanBeDoneWithoutTheDaemon(t *testing.T) {
	r := open(t, named("work", dom0.Running))
	r.fake.Edit(func(s *dom0.Snapshot) { s.Link, s.Problem = dom0.Lost, "The connection to qubesd was lost." })
	got := lines(r.view.Menu, "")
	if !strings.HasPrefix(got, "(The connection to qubesd was lost.)\n---\n") || strings.Contains(got, "\n  Terminal") {
		t.Errorf("the menu is\n%s", got)
	}
	r.fake.Edit(func(s *dom0.Snapshot) { s.Link, s.Problem, s.Qubes = dom0.Connected, "", nil })
	if got := lines(r.view.Menu, ""); got != "(No qube is running.)\n---\nOpen Qube Manager\n" {
		t.Errorf("the menu is\n%s", got)
	}
}

func TestTheMenuTellsOfUpdatesAndTheDisk(t *testing.T) {
	r := open(t)
	r.fake.Edit(func(s *dom0.Snapshot) {
		s.Disk = dom0.Disk{Size: 100e9, Used: 12e9}
		for _, name := range []string{"debian-12", "fedora-41", "solo"} {
			q := named(name, dom0.Halted)
			q.Updates = true
			s.Qubes = append(s.Qubes, q)
		}
	})
	const want = `(No qube is running.)
---
Updates for debian-12, fedora-41, solo
(Disk: 88 GB free)
---
Open Qube Manager
`
	if got := lines(r.view.Menu, ""); got != want {
		t.Errorf("the menu is\n%s", got)
	}
	r.fake.Edit(func(s *dom0.Snapshot) {
		s.Disk.Used = 97e9
		q := named("zeta", dom0.Halted)
		q.Updates = true
		s.Qubes = append(s.Qubes, q)
	})
	r.opened = errors.New("no display")
	r.pick("Updates for debian-12, fedora-41, solo and 1 more")
	r.pick("Disk: only 3.0 GB free")
	if len(r.notices) != 2 {
		t.Errorf("the Manager was not asked for: %q", r.notices)
	}
}
