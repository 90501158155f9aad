package notifier

import (
	"context"
	"fmt"
	"strconv"

	"github.com/godbus/dbus/v5"
)

// FollowMenu reads the menu of an icon and hands its entries to show, at
// once and whenever it changes, until ctx ends or the program does not
// answer. An entry's Activate clicks it.
func (h *Host) FollowMenu(ctx context.Context, s Shown, show func([]Entry)) error {
	if s.Menu == "" {
		return fmt.Errorf("menu of %q: it has none", s.Title)
	}
	object := h.conn.Object(s.Address.Bus, s.Menu)
	signals := make(chan *dbus.Signal, 64)
	h.conn.Signal(signals)
	defer h.conn.RemoveSignal(signals)
	match := []dbus.MatchOption{dbus.WithMatchSender(s.Address.Bus), dbus.WithMatchObjectPath(s.Menu), dbus.WithMatchInterface(menuFace)}
	if err := h.conn.AddMatchSignalContext(ctx, match...); err != nil {
		return fmt.Errorf("menu of %q: %w", s.Title, err)
	}
	// The connection may have ended, which takes the match with it.
	defer func() { _ = h.conn.RemoveMatchSignal(match...) }()
	read := func() error {
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		// Programs that fill their menu when it opens want to be told; some
		// do not know the call.
		_ = object.CallWithContext(ctx, menuFace+".AboutToShow", 0, int32(0)).Err
		var revision uint32
		var root layout
		err := object.CallWithContext(ctx, menuFace+".GetLayout", 0, int32(0), int32(-1), []string{}).Store(&revision, &root)
		if err != nil {
			return fmt.Errorf("menu of %q: %w", s.Title, err)
		}
		left := maxEntries
		show(entries(root, maxDepth, &left, func(id int32) func() {
			return func() {
				object.Go(menuFace+".Event", dbus.FlagNoReplyExpected, nil, id, "clicked", dbus.MakeVariant(int32(0)), uint32(0))
			}
		}))
		return nil
	}
	if err := read(); err != nil {
		return err
	}
	for {
		select {
		case signal, ok := <-signals:
			if !ok {
				return fmt.Errorf("menu of %q: the session bus is gone", s.Title)
			}
			if signal.Sender != s.Address.Bus || signal.Path != s.Menu {
				continue
			}
			if signal.Name == menuFace+".LayoutUpdated" || signal.Name == menuFace+".ItemsPropertiesUpdated" {
				if err := read(); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// entries checks the children of a layout of another program, taking left
// of them at most.
func entries(l layout, depth int, left *int, click func(int32) func()) []Entry {
	var out []Entry
	if depth == 0 {
		return nil
	}
	for _, v := range l.Children {
		if *left--; *left < 0 {
			return out
		}
		c, ok := layoutOf(v.Value())
		if !ok {
			continue
		}
		if visible, ok := c.Properties["visible"].Value().(bool); ok && !visible {
			continue
		}
		e := Entry{Key: strconv.Itoa(int(c.ID)), Label: clean(unmark(text(c.Properties, "label")))}
		e.Separator = text(c.Properties, "type") == "separator"
		if enabled, ok := c.Properties["enabled"].Value().(bool); ok {
			e.Disabled = !enabled
		}
		if kind := text(c.Properties, "toggle-type"); kind == "checkmark" || kind == "radio" {
			state, _ := c.Properties["toggle-state"].Value().(int32)
			e.Checkable, e.Checked = true, state == 1
		}
		if png, ok := c.Properties["icon-data"].Value().([]byte); ok && len(png) <= maxPNG {
			e.Icon = png
		}
		e.Children = entries(c, depth-1, left, click)
		e.Activate = click(c.ID)
		out = append(out, e)
	}
	return out
}

// layoutOf reads a value of signature (ia{sv}av) as the bus library gives it.
func layoutOf(value any) (l layout, ok bool) {
	fields, _ := value.([]any)
	if len(fields) != 3 {
		return l, false
	}
	var has [3]bool
	l.ID, has[0] = fields[0].(int32)
	l.Properties, has[1] = fields[1].(map[string]dbus.Variant)
	l.Children, has[2] = fields[2].([]dbus.Variant)
	return l, has == [3]bool{true, true, true}
}
