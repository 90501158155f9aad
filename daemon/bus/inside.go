package bus

import (
	"fmt"
	"math"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// inside answers what is told of one qube by method only: too much, or too
// rarely asked, to be properties.
func (m *member) inside(id qube.UUID, args []any) ([]any, error) {
	c := m.s.core
	switch m.spec.name {
	case "Apps":
		apps, err := c.Apps(m.s.ctx, id)
		list := []struct{ ID, Name, Comment string }{}
		for _, a := range apps {
			list = append(list, struct{ ID, Name, Comment string }(a))
		}
		return []any{list}, err
	case "Console":
		text, err := c.Console(id, lines(args[0]))
		return []any{[]byte(text)}, err
	case "Messages":
		list, err := c.Messages(id, lines(args[0]))
		return []any{append([]string{}, list...)}, err
	case "Notes":
		text, err := c.Notes(id)
		return []any{text}, err
	case "SetNotes":
		return nil, c.SetNotes(id, args[0].(string))
	case "KeepRevision":
		return nil, c.KeepRevision(m.s.ctx, id, args[0].(string), args[1].(string), args[2].(bool))
	case "Resize":
		bytes := args[1].(uint64)
		if bytes > math.MaxInt64 {
			return nil, core.Failf(core.BadValue, "%d bytes is more than a volume can have", bytes)
		}
		return nil, c.ResizeVolume(m.s.ctx, id, args[0].(string), int64(bytes))
	case "Revert":
		return nil, c.RevertVolume(m.s.ctx, id, args[0].(string), args[1].(string))
	}
	return nil, fmt.Errorf("unknown method %s", m.spec.name)
}

func lines(arg any) int { return int(min(arg.(uint32), math.MaxInt32)) }
