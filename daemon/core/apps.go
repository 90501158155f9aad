package core

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"cubicle/daemon/qube"
)

// App is a desktop entry of a qube. Its texts come from the qube and are
// cleaned: printable, on one line, bounded.
type App struct {
	ID      string // the desktop entry's name without .desktop
	Name    string
	Comment string
}

// Bounds of a list of apps (spec/services.md §5).
const (
	maxApps     = 1000
	maxAppBytes = 1 << 20
	maxAppText  = 128 // runes of a name or a comment
	appsWait    = 5 * time.Second
)

// Apps are the desktop entries of a qube, by name. A running qube is asked,
// and its answer kept; of another one the last answer is told, or its
// template's.
func (c *Core) Apps(ctx context.Context, id qube.UUID) ([]App, error) {
	q, err := c.findMachine(id)
	if err != nil {
		return nil, err
	}
	if q.State() == qube.Running {
		apps, err := c.askApps(ctx, q)
		if err == nil {
			return apps, nil
		}
		c.log.Info("ask for applications", "qube", string(q.Name()), "error", err)
	}
	raw, err := c.cfg.Store.Apps(q.Class(), q.Name())
	if t := q.TemplateName(); err == nil && raw == "" && t != "" {
		raw, err = c.cfg.Store.Apps(qube.TemplateVM, t)
	}
	if err != nil {
		return nil, wrap(err, "read the applications of %s", q.Name())
	}
	return ParseApps(raw), nil
}

func (c *Core) askApps(ctx context.Context, q Qube) ([]App, error) {
	r, err := c.current(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, appsWait)
	defer cancel()
	out := &bounded{left: maxAppBytes}
	exit, err := c.cfg.Caller.Call(ctx, Service{To: r.facts.Domain, Name: "qubes.GetAppmenus", Output: out})
	switch {
	case err != nil:
		return nil, wrap(err, "qubes.GetAppmenus in %s", q.Name())
	case exit != 0:
		return nil, Failf(VMError, "qubes.GetAppmenus in %s ended with status %d", q.Name(), exit)
	}
	apps := ParseApps(out.String())
	text := formatApps(apps)
	if old, err := c.cfg.Store.Apps(q.Class(), q.Name()); err != nil || old != text {
		if err := c.cfg.Store.SetApps(q.Class(), q.Name(), text); err != nil {
			c.log.Warn("keep the list of applications", "qube", string(q.Name()), "error", err)
		}
	}
	return apps, nil
}

// bounded is a buffer that refuses what is too much.
type bounded struct {
	bytes.Buffer
	left int
}

var _ io.Writer = (*bounded)(nil)

var errTooMuch = errors.New("the qube sent too much")

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, errTooMuch
	}
	b.left -= len(p)
	return b.Buffer.Write(p)
}

// ParseApps reads what qubes.GetAppmenus writes (spec/services.md §5): lines
// FILE:KEY=VALUE. What it cannot use it leaves out.
func ParseApps(text string) []App {
	found := map[string]*App{}
	for line := range strings.SplitSeq(text, "\n") {
		file, rest, _ := strings.Cut(line, ":")
		key, value, ok := strings.Cut(rest, "=")
		id, isEntry := strings.CutSuffix(file, ".desktop")
		if !ok || !isEntry || !isApp(id) {
			continue
		}
		app := found[id]
		if app == nil {
			if len(found) >= maxApps {
				break
			}
			app = &App{ID: id}
			found[id] = app
		}
		switch key {
		case "Name":
			app.Name = cleanLine(value)
		case "Comment":
			app.Comment = cleanLine(value)
		}
	}
	apps := make([]App, 0, len(found))
	for _, a := range found {
		if a.Name == "" {
			a.Name = a.ID
		}
		apps = append(apps, *a)
	}
	slices.SortFunc(apps, func(a, b App) int {
		if by := strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)); by != 0 {
			return by
		}
		return strings.Compare(a.ID, b.ID)
	})
	return apps
}

// isApp reports whether an id can be an argument of qubes.StartApp.
func isApp(id string) bool {
	return id != "" && len(id) <= maxApp && strings.Trim(id, tagBytes+".+") == ""
}

// formatApps is the inverse of ParseApps.
func formatApps(apps []App) string {
	var b strings.Builder
	for _, a := range apps {
		b.WriteString(a.ID + ".desktop:Name=" + a.Name + "\n")
		if a.Comment != "" {
			b.WriteString(a.ID + ".desktop:Comment=" + a.Comment + "\n")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// cleanLine makes a qube's text fit for a line of a window: what is not
// printable, and what turns the direction of writing, is left out.
func cleanLine(text string) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if r == utf8.RuneError || !qube.Printable(r) {
			continue
		}
		if n++; n > maxAppText {
			b.WriteRune('…')
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}
