package gui

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// setLayout gives the X server the keyboard of dom0. Keys travel as numbers
// (spec/gui-protocol.md §11.6), so the numbering must be dom0's, too: evdev,
// whereas a server without devices starts with another one. layout is
// "layout[+variant[+options]]" as in the qube's property keyboard_layout
// (§15.4).
func (a *Agent) setLayout(layout string) error {
	args, err := layoutArgs(layout)
	if err != nil {
		return err
	}
	if a.opts.Display != "" {
		args = append(args, "-display", a.opts.Display)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "setxkbmap", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("setxkbmap: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// followLayout sets the layouts that come until ctx ends. It touches nothing
// of the agent: setxkbmap is a client of the X server's own, and the agent
// hears from the server that keys mean something else.
func (a *Agent) followLayout(ctx context.Context) {
	for {
		select {
		case layout, ok := <-a.opts.Layouts:
			if !ok {
				return
			}
			if err := a.setLayout(layout); err != nil {
				a.log.Warn("the keyboard stays as it is", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// layoutArgs are setxkbmap's arguments for a layout.
func layoutArgs(layout string) ([]string, error) {
	parts := strings.SplitN(layout, "+", 3)
	for _, p := range parts {
		if strings.HasPrefix(p, "-") || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("%q is not a keyboard layout", layout)
		}
	}
	if parts[0] == "" {
		return nil, fmt.Errorf("%q names no keyboard layout", layout)
	}
	args := []string{"-rules", "evdev", "-model", "pc105", "-layout", parts[0]}
	if len(parts) > 1 && parts[1] != "" {
		args = append(args, "-variant", parts[1])
	}
	args = append(args, "-option", "") // forget those before
	if len(parts) > 2 && parts[2] != "" {
		args = append(args, "-option", parts[2])
	}
	return args, nil
}
