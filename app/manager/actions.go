package manager

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"fyne.io/fyne/v2"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// answerTime is how long the daemon may take to accept an action; the work
// itself is a job.
const answerTime = 30 * time.Second

// ability is what can be done with the selection.
type ability struct {
	live                                 bool // the daemon is there
	start, shutdown, pause, resume, kill bool
	open, clone, remove, settings        bool
}

func (m *Manager) able(chosen []dom0.Qube) ability {
	a := ability{live: m.state.Link == dom0.Connected}
	if !a.live {
		return a
	}
	for i := range chosen {
		q := &chosen[i]
		if q.Class == dom0.AdminVM {
			continue
		}
		a.start = a.start || canStart(q)
		a.shutdown = a.shutdown || canShutdown(q)
		a.pause = a.pause || q.State == dom0.Running
		a.resume = a.resume || q.State == dom0.Paused
		a.kill = a.kill || isUp(q)
		a.open = a.open || canOpen(q)
		a.remove = true
		a.clone = len(chosen) == 1 && q.State != dom0.NA
		a.settings = len(chosen) == 1 && hasSettings(q)
	}
	return a
}

func canStart(q *dom0.Qube) bool {
	return q.Class != dom0.AdminVM && (q.State == dom0.Halted || q.State == dom0.Crashed)
}

func canShutdown(q *dom0.Qube) bool {
	return q.Class != dom0.AdminVM && (q.State == dom0.Running || q.State == dom0.Transient)
}

// canOpen: a program can be opened where the qube runs or can be started.
func canOpen(q *dom0.Qube) bool {
	return q.Class != dom0.AdminVM && (q.State == dom0.Running || q.State == dom0.Transient || q.State == dom0.Halted)
}

// hasSettings: a broken qube's cannot be read.
func hasSettings(q *dom0.Qube) bool { return q.Class != dom0.AdminVM && q.State != dom0.NA }

func canKill(q *dom0.Qube) bool { return q.Class != dom0.AdminVM && isUp(q) }

// chosen is the selected qubes that fit.
func (m *Manager) chosen(fits func(*dom0.Qube) bool) []dom0.Qube {
	var list []dom0.Qube
	for _, q := range m.table.chosen() {
		if fits(&q) {
			list = append(list, q)
		}
	}
	return list
}

// call is one action on one qube.
type call func(context.Context, dom0.Qube) (dom0.JobID, error)

// do runs an action for each qube, without waiting.
func (m *Manager) do(kind string, qubes []dom0.Qube, action call) {
	for _, q := range qubes {
		again := func() { m.do(kind, []dom0.Qube{q}, action) }
		m.notices.drop(noticeKey(kind, q.Name))
		m.request(func(ctx context.Context) (dom0.JobID, error) { return action(ctx, q) },
			func(id dom0.JobID, err error) {
				if err != nil {
					m.failed(kind, q.Name, err, again)
					return
				}
				m.accepted(id, again)
			})
	}
}

// request asks the daemon off the UI goroutine and hands the answer back.
func (m *Manager) request(ask func(context.Context) (dom0.JobID, error), answer func(dom0.JobID, error)) {
	m.opts.Spawn(func() {
		ctx, cancel := context.WithTimeout(m.ctx, answerTime)
		defer cancel()
		id, err := ask(ctx)
		m.opts.UI(func() {
			if m.ctx.Err() == nil {
				answer(id, err)
			}
		})
	})
}

// accepted notes how a job is tried again. The job may have ended before its
// name was known here: then its end is looked at once more.
func (m *Manager) accepted(id dom0.JobID, again func()) {
	m.retries[id] = again
	for _, j := range m.state.Jobs {
		if j.ID == id && j.State == dom0.JobFailed {
			m.jobFailed(j)
		}
	}
	m.follow(m.state)
}

func (m *Manager) start() {
	m.do("start", m.chosen(canStart), func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) { return m.client.Start(ctx, q.ID) })
}

func (m *Manager) shutdown() {
	m.do("shutdown", m.chosen(canShutdown), func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) {
		return m.client.Shutdown(ctx, q.ID, false)
	})
}

// pauseOrResume resumes when there is something to resume and nothing to
// pause, as the button says.
func (m *Manager) pauseOrResume() {
	if running := m.chosen(func(q *dom0.Qube) bool { return q.State == dom0.Running && q.Class != dom0.AdminVM }); len(running) > 0 {
		m.do("pause", running, func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) { return m.client.Pause(ctx, q.ID) })
		return
	}
	m.do("unpause", m.chosen(func(q *dom0.Qube) bool { return q.State == dom0.Paused }),
		func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) { return m.client.Unpause(ctx, q.ID) })
}

func (m *Manager) terminal() { m.openTerminal(m.chosen(canOpen)) }

func (m *Manager) openTerminal(qubes []dom0.Qube) {
	m.do("app", qubes, func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) {
		return m.client.StartApp(ctx, q.ID, dom0.TerminalApp)
	})
}

func (m *Manager) kill() { m.killAfterAsking(m.chosen(canKill)) }

func (m *Manager) killAfterAsking(qubes []dom0.Qube) {
	if len(qubes) == 0 {
		return
	}
	m.ask(question{
		icon:  control.ColorIcon("kill", fynetheme.ColorNameError),
		title: words.T("Kill %s?", names(qubes)),
		loss:  words.T("It stops at once. What is not saved in its windows is lost."),
		do:    words.T("Kill"),
		act: func() {
			m.do("kill", qubes, func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) { return m.client.Kill(ctx, q.ID) })
		},
	})
}

// remove asks first; what still runs has to be shut down before.
func (m *Manager) remove() {
	if m.state.Link != dom0.Connected {
		return
	}
	qubes := m.chosen(func(q *dom0.Qube) bool { return q.Class != dom0.AdminVM })
	if len(qubes) == 0 {
		return
	}
	for _, q := range qubes {
		if isUp(&q) {
			m.notices.add(notice{
				key:    noticeKey("remove", q.Name),
				title:  words.T("Could not remove %s", q.Name),
				reason: words.T("It is %s. Shut it down first, then remove it.", faceOf(&q).word),
				next:   words.T("Shut down"),
				act: func() {
					m.do("shutdown", []dom0.Qube{q}, func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) {
						return m.client.Shutdown(ctx, q.ID, false)
					})
				},
			})
			return
		}
	}
	disk := uint64(0)
	var based []string
	for _, q := range qubes {
		disk += q.Disk
		for i := range m.state.Qubes {
			if m.state.Qubes[i].Template == q.Name {
				based = append(based, string(m.state.Qubes[i].Name))
			}
		}
	}
	title := words.T("Remove %s?", names(qubes))
	loss := words.T("All its files are deleted. There is no backup of it.")
	if len(qubes) == 1 && !qubes[0].LastBackup.IsZero() {
		loss = words.T("All its files are deleted. Its last backup is of %s.", backedUp(qubes[0].LastBackup, m.opts.Now()))
	}
	switch {
	case len(qubes) > 1:
		loss = words.T("All their files are deleted. There is no backup of them.")
		if slices.ContainsFunc(qubes, func(q dom0.Qube) bool { return !q.LastBackup.IsZero() }) {
			loss = words.T("All their files are deleted. There is no backup of what they hold since their last one.")
		}
		if disk > 0 {
			title = words.T("Remove %s and their %s?", names(qubes), size(disk))
		}
	case disk > 0:
		title = words.T("Remove %s and its %s?", names(qubes), size(disk))
	}
	detail := ""
	if len(based) > 0 {
		detail = words.T("Built on it: %s.", strings.Join(based, ", "))
	}
	m.ask(question{
		icon:   control.ColorIcon("trash", fynetheme.ColorNameError),
		title:  title,
		loss:   loss,
		detail: detail,
		do:     words.T("Remove"),
		act: func() {
			m.do("remove", qubes, func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) { return m.client.Remove(ctx, q.ID) })
		},
	})
}

func (m *Manager) clone() {
	qubes := m.chosen(func(q *dom0.Qube) bool { return q.Class != dom0.AdminVM })
	if len(qubes) != 1 {
		return
	}
	q := qubes[0]
	m.askText(prompt{
		title:       words.T("Clone %s", q.Name),
		hint:        words.T("The copy gets all files and settings of %s.", q.Name),
		placeholder: words.T("Name of the copy"),
		text:        m.freeName(string(q.Name)),
		do:          words.T("Clone"),
		check:       m.nameFault,
		act: func(text string) {
			name, err := dom0.ParseName(text)
			if err != nil {
				return // the check does not let it through
			}
			m.do("clone", []dom0.Qube{q}, func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) { return m.client.Clone(ctx, q.ID, name) })
		},
	})
}

// nameFault is why a new qube cannot have that name, or "".
func (m *Manager) nameFault(text string) string {
	if why := dom0.NameFault(text); why != "" {
		return words.Known(why)
	}
	if _, taken := m.state.ByName(dom0.Name(text)); taken {
		return words.T("there is a qube %s already", text)
	}
	return ""
}

func (m *Manager) freeName(of string) string {
	for n := 1; n < 100; n++ {
		if name := fmt.Sprintf("%s-%d", of, n); m.nameFault(name) == "" {
			return name
		}
	}
	return ""
}

func (m *Manager) run() {
	qubes := m.chosen(canOpen)
	if len(qubes) == 0 {
		return
	}
	root := control.NewCheck(words.T("As root"), nil)
	root.OnEscape = m.closeSheet
	m.askText(prompt{
		title:       words.T("Run a command in %s", names(qubes)),
		placeholder: words.T("Shell command, such as xterm"),
		do:          words.T("Run"),
		check: func(text string) string {
			if strings.TrimSpace(text) == "" {
				return words.T("a command is needed")
			}
			return ""
		},
		extra: root,
		act: func(command string) {
			user := ""
			if root.Checked {
				user = "root"
			}
			m.do("run", qubes, func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) {
				return m.client.Run(ctx, q.ID, command, user)
			})
		},
	})
}

// activate is the default action: what people most likely want.
func (m *Manager) activate(id dom0.QubeID) {
	q, ok := m.state.ByID(id)
	if !ok || m.state.Link != dom0.Connected {
		return
	}
	one := []dom0.Qube{q}
	switch {
	case canStart(&q):
		m.do("start", one, func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) { return m.client.Start(ctx, q.ID) })
	case q.State == dom0.Paused:
		m.do("unpause", one, func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) { return m.client.Unpause(ctx, q.ID) })
	case canOpen(&q):
		m.openTerminal(one)
	}
}

// menuItems is what can be done, as a menu.
func (m *Manager) menuItems(full bool) []*fyne.MenuItem {
	a := m.able(m.table.chosen())
	item := func(text, icon string, able bool, act func()) *fyne.MenuItem {
		i := fyne.NewMenuItem(text, act)
		i.Icon, i.Disabled = control.Icon(icon), !able
		return i
	}
	var items []*fyne.MenuItem
	if full {
		pause := item(words.T("Pause"), "pause", a.pause, m.pauseOrResume)
		if a.resume && !a.pause {
			pause = item(words.T("Resume"), "play", true, m.pauseOrResume)
		}
		items = append(items,
			item(words.T("Start"), "play", a.start, m.start),
			item(words.T("Shut down"), "stop", a.shutdown, m.shutdown),
			pause,
			item(words.T("Terminal"), "terminal", a.open, m.terminal),
			fyne.NewMenuItemSeparator())
	}
	return append(items,
		item(words.T("Run command …"), "run", a.open, m.run),
		item(words.T("Clone …"), "clone", a.clone, m.clone),
		item(words.T("Settings"), "settings", a.settings, m.settings),
		fyne.NewMenuItemSeparator(),
		item(words.T("Kill …"), "kill", a.kill, m.kill),
		item(words.T("Remove …"), "trash", a.remove, m.remove))
}

// names lists qubes for a sentence; more than three become a number.
func names(qubes []dom0.Qube) string {
	list := make([]string, len(qubes))
	for i, q := range qubes {
		list[i] = string(q.Name)
	}
	switch n := len(list); {
	case n > 3:
		return words.T("%d qubes", n)
	case n > 1:
		return words.T("%s and %s", strings.Join(list[:n-1], ", "), list[n-1])
	}
	return strings.Join(list, "")
}
