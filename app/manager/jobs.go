package manager

import (
	"context"
	"errors"

	"cubicle/app/dom0"
	"cubicle/app/words"
)

// follow looks at how jobs ended since the last snapshot.
func (m *Manager) follow(s *dom0.Snapshot) {
	first := m.jobs == nil
	if s.Link != dom0.Connected {
		return
	}
	now := make(map[dom0.JobID]dom0.JobState, len(s.Jobs))
	for _, j := range s.Jobs {
		now[j.ID] = j.State
		if j.State == dom0.JobDone {
			if name, wanted := m.starts[j.ID]; wanted {
				if q, ok := s.ByName(name); ok {
					delete(m.starts, j.ID)
					m.do("start", []dom0.Qube{q}, func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) { return m.client.Start(ctx, q.ID) })
				}
			}
		}
		if first || m.jobs[j.ID] == j.State {
			continue // told already, or before this window was there
		}
		switch j.State {
		case dom0.JobFailed:
			m.jobFailed(j)
		case dom0.JobDone:
			m.notices.drop(noticeKey(j.Kind, j.Qube))
		}
	}
	for id := range m.retries {
		if _, was := m.jobs[id]; was && now[id] == "" {
			delete(m.retries, id)
			delete(m.starts, id)
		}
	}
	m.jobs = now
}

func (m *Manager) jobFailed(j dom0.Job) {
	err := &dom0.Error{Op: j.Kind, Subject: string(j.Qube), Name: j.ErrorName, Reason: j.Error}
	m.failed(j.Kind, j.Qube, err, m.retryOf(j))
}

// retryOf is how a failed job is tried again, also one that another program
// began, or nil.
func (m *Manager) retryOf(j dom0.Job) func() {
	if again := m.retries[j.ID]; again != nil {
		return again
	}
	var action call
	switch j.Kind {
	case "start":
		action = func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) { return m.client.Start(ctx, q.ID) }
	case "shutdown":
		action = func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) { return m.client.Shutdown(ctx, q.ID, false) }
	default:
		return nil
	}
	return func() {
		if q, ok := m.state.ByName(j.Qube); ok {
			m.do(j.Kind, []dom0.Qube{q}, action)
		}
	}
}

// failed shows what failed, for which qube, why, and the next step.
func (m *Manager) failed(kind string, name dom0.Name, err error, again func()) {
	n := notice{
		key:    noticeKey(kind, name),
		title:  words.CouldNot(kind, string(name)),
		reason: reason(err),
	}
	if again != nil {
		n.next, n.act = words.T("Retry"), again
	}
	// A qube that does not shut down is what Kill is for.
	if q, ok := m.state.ByName(name); ok && kind == "shutdown" && isUp(&q) {
		n.next, n.act = words.T("Kill …"), func() { m.killAfterAsking([]dom0.Qube{q}) }
	}
	// What the qube or the daemon said last often tells more than the error.
	if q, ok := m.state.ByName(name); ok && (kind == "start" || kind == "app" || kind == "run") {
		n.look, n.lookAct = words.T("Show console"), func() { m.lookInto(q.ID, m.pane.console) }
	} else if ok {
		n.look, n.lookAct = words.T("Show log"), func() { m.lookInto(q.ID, m.pane.log) }
	}
	m.notices.add(n)
}

func noticeKey(kind string, name dom0.Name) string { return kind + " " + string(name) }

// reason is why something failed, in the language of the window.
func reason(err error) string {
	if refused := (*dom0.Error)(nil); errors.As(err, &refused) {
		return words.Reason(refused.Name, refused.Reason)
	}
	return words.Reason("", err.Error())
}

func (m *Manager) cancelJob(id dom0.JobID) {
	m.request(func(ctx context.Context) (dom0.JobID, error) { return id, m.client.Cancel(ctx, id) },
		func(id dom0.JobID, err error) {
			if err != nil {
				m.notices.add(notice{key: "cancel " + string(id), title: words.T("Could not cancel"), reason: reason(err)})
			}
		})
}
