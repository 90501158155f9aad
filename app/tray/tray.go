// Package tray is what the tray shows and does: the running qubes with their
// colours, a menu for each, and what is done when a line of it is clicked. It
// draws nothing itself: Options say where menus, chips, questions and
// notifications go. tray/notifier brings the menu to the desktop's tray,
// tray/strip shows it where there is none.
package tray

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"cubicle/app/dom0"
	"cubicle/app/tray/notifier"
	"cubicle/app/words"
	"cubicle/theme/label"
)

// Chip is a running qube as the strip shows it.
type Chip struct {
	ID    dom0.QubeID
	Name  string
	Shape label.Shape
	Color uint32 // 0x00RRGGBB
	State dom0.State
	Tip   string           // state and memory, for the pointer
	Menu  []notifier.Entry // what can be done
}

// Key is that of the chip's line in the tray's menu.
func (c Chip) Key() string { return "qube " + string(c.ID) }

// Question is asked before something is lost.
type Question struct {
	Key     string // the same question is asked once at a time
	Title   string
	Text    string // names the object and the loss
	Confirm string // the button
	Shape   label.Shape
	Color   uint32
	Do      func()
}

// View is the whole tray at one moment.
type View struct {
	Tip   string           // one line
	Menu  []notifier.Entry // without icons: a chip's line has the chip's key
	Chips []Chip
}

// Options are the tray's surroundings.
type Options struct {
	// Show is called with every change of the view, one at a time.
	Show func(View)
	// Ask puts a question to the person.
	Ask func(Question)
	// Notify says that something failed. Both texts are dom0's, one line
	// each.
	Notify func(title, text string)
	// OpenManager shows the Qube Manager.
	OpenManager func() error
}

// Tray follows the daemon until it is closed.
type Tray struct {
	client  dom0.Client
	options Options
	stop    func()

	mu    sync.Mutex // guards mine
	mine  map[dom0.JobID]struct{}
	shown sync.Mutex // one Show at a time
}

// New shows the first view before it returns.
func New(client dom0.Client, o Options) *Tray {
	t := &Tray{client: client, options: o, mine: map[dom0.JobID]struct{}{}}
	t.stop = client.Watch(t.update)
	t.update(client.Snapshot())
	return t
}

// Close stops following.
func (t *Tray) Close() { t.stop() }

// Refresh shows the view again, for a theme that has changed.
func (t *Tray) Refresh() { t.update(t.client.Snapshot()) }

func (t *Tray) update(s *dom0.Snapshot) {
	t.shown.Lock()
	t.options.Show(t.view(s))
	t.shown.Unlock()
	t.judge(s)
}

// view is what a snapshot looks like.
func (t *Tray) view(s *dom0.Snapshot) View {
	var v View
	live := s.Link == dom0.Connected
	for i := range s.Qubes {
		q := &s.Qubes[i]
		if q.Class == dom0.AdminVM || !(q.State.IsUp() || q.State == dom0.Transient) {
			continue
		}
		c := Chip{
			ID: q.ID, Name: string(q.Name), Shape: label.ShapeOf(q.Class), Color: q.Label.Color, State: q.State,
			Tip: string(q.Name) + " — " + status(q), Menu: t.actions(q, live),
		}
		v.Chips = append(v.Chips, c)
		v.Menu = append(v.Menu, notifier.Entry{
			Key: c.Key(), Label: string(q.Name) + "  ·  " + status(q), Children: c.Menu,
		})
	}
	switch {
	case !live:
		why := s.Problem
		if why == "" {
			why = words.T("Waiting for qubesd.")
		}
		v.Tip = why
		v.Menu = append([]notifier.Entry{{Key: "link", Label: why, Disabled: true}, {Key: "link line", Separator: true}}, v.Menu...)
	case len(v.Chips) == 0:
		v.Tip = words.T("No qube is running.")
		v.Menu = append(v.Menu, notifier.Entry{Key: "none", Label: words.T("No qube is running."), Disabled: true})
	default:
		names := make([]string, len(v.Chips))
		for i, c := range v.Chips {
			names[i] = c.Name
		}
		v.Tip = words.T("Running: %s", strings.Join(names, ", "))
	}
	v.Menu = append(v.Menu, notifier.Entry{Key: "line", Separator: true})
	v.Menu = append(v.Menu, t.system(s)...)
	v.Menu = append(v.Menu,
		notifier.Entry{Key: "manager", Label: words.T("Open Qube Manager"), Activate: t.openManager})
	return v
}

// system is what there is to know of the whole: updates, and the disk.
func (t *Tray) system(s *dom0.Snapshot) (list []notifier.Entry) {
	var updates []string
	for i := range s.Qubes {
		if s.Qubes[i].Updates {
			updates = append(updates, string(s.Qubes[i].Name))
		}
	}
	if len(updates) > 0 {
		text := strings.Join(updates[:min(len(updates), maxUpdates)], ", ")
		if more := len(updates) - maxUpdates; more > 0 {
			text = words.T("%s and %d more", text, more)
		}
		list = append(list, notifier.Entry{Key: "updates", Label: words.T("Updates for %s", text), Activate: t.openManager})
	}
	if disk := s.Disk; disk.Size > 0 {
		text := words.T("Disk: %s free", words.Size(disk.Size-min(disk.Used, disk.Size)))
		if disk.Scarce() {
			text = words.T("Disk: only %s free", words.Size(disk.Size-min(disk.Used, disk.Size)))
		}
		list = append(list, notifier.Entry{Key: "disk", Label: text, Disabled: !disk.Scarce(), Activate: t.openManager})
	}
	if len(list) > 0 {
		list = append(list, notifier.Entry{Key: "system line", Separator: true})
	}
	return list
}

// maxUpdates is how many qubes the line of updates names.
const maxUpdates = 3

// actions is a qube's menu. An entry that makes no sense now is disabled
// rather than away: the hand finds it where it was.
func (t *Tray) actions(q *dom0.Qube, live bool) []notifier.Entry {
	id, name := q.ID, string(q.Name)
	do := func(op string, call func(context.Context) (dom0.JobID, error)) func() {
		return func() { t.do(op, name, call) }
	}
	pause := notifier.Entry{Key: "pause", Label: words.T("Pause"), Disabled: !live || q.State != dom0.Running,
		Activate: do("pause", func(ctx context.Context) (dom0.JobID, error) { return t.client.Pause(ctx, id) })}
	if q.State == dom0.Paused {
		pause.Label, pause.Disabled = words.T("Resume"), !live
		pause.Activate = do("unpause", func(ctx context.Context) (dom0.JobID, error) { return t.client.Unpause(ctx, id) })
	}
	shape, rgb := label.ShapeOf(q.Class), q.Label.Color
	kill := func() {
		t.options.Ask(Question{
			Key:     "kill " + string(id),
			Title:   words.T("Kill %s?", name),
			Text:    words.T("Kill %s? Its programs end at once, like a computer whose plug is pulled: what they have not saved is lost.", name),
			Confirm: words.T("Kill %s", name), Shape: shape, Color: rgb,
			Do: do("kill", func(ctx context.Context) (dom0.JobID, error) { return t.client.Kill(ctx, id) }),
		})
	}
	return []notifier.Entry{
		{Key: "terminal", Label: words.T("Terminal"), Disabled: !live || q.State != dom0.Running,
			Activate: do("app", func(ctx context.Context) (dom0.JobID, error) {
				return t.client.StartApp(ctx, id, dom0.TerminalApp)
			})},
		pause,
		{Key: "line", Separator: true},
		{Key: "shutdown", Label: words.T("Shut down"), Disabled: !live || q.State != dom0.Running && q.State != dom0.Transient,
			Activate: do("shutdown", func(ctx context.Context) (dom0.JobID, error) { return t.client.Shutdown(ctx, id, false) })},
		{Key: "kill", Label: words.T("Kill …"), Disabled: !live || !q.State.IsUp(), Activate: kill},
	}
}

// answerTime is how long the daemon may take to accept an action; the work
// itself is a job.
const answerTime = 30 * time.Second

// do runs an action and sees to it that its failure is told.
func (t *Tray) do(op, name string, call func(context.Context) (dom0.JobID, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	job, err := call(ctx)
	if err != nil {
		kind, text := "", err.Error()
		if refused := (*dom0.Error)(nil); errors.As(err, &refused) {
			kind, text = refused.Name, refused.Reason
		}
		t.failed(op, name, words.Reason(kind, text))
		return
	}
	t.mu.Lock()
	t.mine[job] = struct{}{}
	t.mu.Unlock()
	// It may have ended before its number was known.
	t.judge(t.client.Snapshot())
}

// judge tells the failures among the jobs that were asked for here, each
// once.
func (t *Tray) judge(s *dom0.Snapshot) {
	var failed []dom0.Job
	t.mu.Lock()
	for _, j := range s.Jobs {
		if _, ok := t.mine[j.ID]; !ok || j.State == dom0.JobRunning {
			continue
		}
		delete(t.mine, j.ID)
		if j.State == dom0.JobFailed {
			failed = append(failed, j)
		}
	}
	t.mu.Unlock()
	for _, j := range failed {
		t.failed(j.Kind, string(j.Qube), words.Reason(j.ErrorName, j.Error))
	}
}

func (t *Tray) failed(op, name, reason string) {
	t.options.Notify(words.CouldNot(op, name), reason)
}

func (t *Tray) openManager() {
	if err := t.options.OpenManager(); err != nil {
		t.options.Notify(words.T("Could not open the Qube Manager"), err.Error())
	}
}

// Find returns the chip of a qube.
func (v *View) Find(id dom0.QubeID) (Chip, bool) {
	i := slices.IndexFunc(v.Chips, func(c Chip) bool { return c.ID == id })
	if i < 0 {
		return Chip{}, false
	}
	return v.Chips[i], true
}
