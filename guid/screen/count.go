package screen

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"cubicle/guid/x11"
)

// maxListed bounds how many windows are counted; the list is the window
// manager's.
const maxListed = 1 << 14

// countPause gathers what follows close behind a change.
const countPause = 100 * time.Millisecond

// Count tells how many windows each qube has on the desktop, by the qube's
// name: those that the window manager lists (EWMH _NET_CLIENT_LIST), so also
// minimised ones, and no menus. It tells at first and whenever that changes,
// until the context ends or the connection is lost; nothing while no window
// manager lists windows. Nothing else may take the screen's events meanwhile.
func (s *Screen) Count(ctx context.Context, tell func(map[string]int)) error {
	list, err := s.conn.Atom("_NET_CLIENT_LIST")
	if err != nil {
		return fmt.Errorf("count windows: %w", err)
	}
	root := s.conn.Root()
	if err := s.conn.SelectInput(root, x11.MaskPropertyChange); err != nil {
		return fmt.Errorf("count windows: %w", err)
	}
	var last map[string]int
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case ev, ok := <-s.conn.Events():
			if !ok {
				return fmt.Errorf("count windows: %w", s.conn.Err())
			}
			if p, changed := ev.Body.(x11.PropertyNotifyEvent); changed && p.Window == root && p.Atom == list {
				look.Reset(countPause)
			}
		case <-look.C:
			now, err := s.count(list)
			if err != nil {
				return fmt.Errorf("count windows: %w", err)
			}
			if now != nil && (last == nil || !maps.Equal(now, last)) {
				tell(maps.Clone(now))
				last = now
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// count is nil where nobody lists windows.
func (s *Screen) count(list x11.Atom) (map[string]int, error) {
	listed, err := s.conn.GetProperty(s.conn.Root(), list, x11.AtomWindow, 4*maxListed)
	if err != nil || listed.Type != x11.AtomWindow {
		return nil, err
	}
	windows := map[string]int{}
	for _, id := range listed.Words() {
		name, err := s.conn.GetProperty(x11.Window(id), s.atoms["_QUBES_VMNAME"], x11.AtomString, 64)
		switch {
		case errors.As(err, new(*x11.Error)):
			continue // it vanished meanwhile
		case err != nil:
			return nil, err
		case len(name.Data) > 0:
			windows[string(name.Data)]++
		}
	}
	return windows, nil
}
