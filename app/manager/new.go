package manager

import (
	"context"

	"cubicle/app/create"
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// newQube opens the page, filled in with an earlier wish if there is one.
func (m *Manager) newQube(earlier create.Wish) {
	if m.state.Link != dom0.Connected {
		return
	}
	page := create.New(m.state, earlier)
	page.OnCancel = m.closeSheet
	page.OnCreate = func(w create.Wish) { m.create(page, w) }
	page.OnDraft = func(class dom0.Class, template string) {
		var rows []dom0.Property
		m.inquire(func(ctx context.Context) (err error) {
			rows, err = m.client.DraftProperties(ctx, class, template)
			return err
		}, func(err error) {
			if err == nil { // else the fields stay without their defaults
				page.Offer(rows)
			}
		})
	}
	page.OnCheck = func(class dom0.Class, property, value string, answer func(string)) {
		m.inquire(func(ctx context.Context) error {
			return m.client.CheckProperty(ctx, class, "", property, value)
		}, func(err error) {
			why := ""
			if err != nil {
				why = reason(err)
			}
			answer(why)
		})
	}
	m.openSheet(page.Content(), 560)
	own := m.sheet
	page.OnGrown = func() {
		if m.sheet == own {
			own.fit()
		}
	}
	m.page = page
	page.Open()
	m.canvas.Focus(page.First())
}

func (m *Manager) create(page *create.Page, w create.Wish) {
	ask := func(ctx context.Context) (dom0.JobID, error) {
		if w.Kind == create.KindTemplate {
			source, ok := m.client.Snapshot().ByName(w.Template)
			if !ok {
				return "", &dom0.Error{Op: "create", Subject: string(w.Name), Reason: words.T("template %s is gone", w.Template)}
			}
			return m.client.Clone(ctx, source.ID, w.Name)
		}
		return m.client.Create(ctx, w.Wanted())
	}
	m.request(ask, func(id dom0.JobID, err error) {
		if err != nil {
			page.Fail(reason(err))
			if m.page == page {
				m.canvas.Focus(page.First())
			}
			return
		}
		if w.StartNow {
			m.starts[id] = w.Name
		}
		if m.page == page {
			m.closeSheet()
		}
		m.accepted(id, func() { m.newQube(w) })
	})
}
