package core

import "cubicle/daemon/qube"

// Announce tells of a change with four events.
func Announce(c *Core, id qube.UUID, text string) {
	c.must(func(t *tx) {
		for range 4 {
			t.emit(t.edit(id), "test", Arg{"text", text})
		}
	})
}

// Look says that a qube looks different.
func Look(c *Core, id qube.UUID) {
	c.must(func(t *tx) { t.events = append(t.events, Event{Qube: id}) })
}
