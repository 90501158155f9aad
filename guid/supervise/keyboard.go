package supervise

import (
	"context"
	"log/slog"
	"strings"

	"cubicle/guid/x11"
)

// Keyboard tells the qubes which keyboard dom0's X server has
// (spec/gui-protocol.md §15.4): keys travel to them as numbers.
type Keyboard struct {
	// Set is told the layout, as layout+variant+options, at first and
	// whenever it becomes another.
	Set func(ctx context.Context, layout string) error
	Log *slog.Logger
}

// rulesNames is the root window's property in which setxkbmap and desktops
// note the layout: rules, model, layout, variant, options, each with a NUL.
const rulesNames = "_XKB_RULES_NAMES"

// maxRules bounds what is read of it, in bytes.
const maxRules = 1024

// Follow reads the server's events until the connection ends.
func (k Keyboard) Follow(ctx context.Context, x *x11.Conn) {
	last := ""
	look := func(atom x11.Atom) {
		p, err := x.GetProperty(x.Root(), atom, x11.AtomAny, maxRules)
		if err != nil {
			k.Log.Warn("dom0's keyboard is unknown", "err", err)
			return
		}
		layout := parseRules(string(p.Data))
		if layout == "" || layout == last {
			return
		}
		if err := k.Set(ctx, layout); err != nil {
			k.Log.Warn("qubes keep another keyboard than dom0", "layout", layout, "err", err)
			return
		}
		last = layout
	}
	atoms, err := x.Atoms(rulesNames)
	if err == nil {
		err = x.SelectInput(x.Root(), x11.MaskPropertyChange)
	}
	if err != nil {
		k.Log.Warn("dom0's keyboard is unknown", "err", err)
	} else {
		look(atoms[rulesNames])
	}
	for ev := range x.Events() {
		if e, ok := ev.Body.(x11.PropertyNotifyEvent); ok && err == nil && e.Atom == atoms[rulesNames] {
			look(e.Atom)
		}
	}
}

// parseRules returns the layout that the property names, or nothing. Of several
// between which the user switches it is the first: a qube has one.
func parseRules(data string) string {
	fields := append(strings.Split(data, "\x00"), "", "", "", "", "")
	layout, _, _ := strings.Cut(fields[2], ",")
	variant, _, _ := strings.Cut(fields[3], ",")
	if layout == "" {
		return ""
	}
	return layout + "+" + variant + "+" + fields[4]
}
