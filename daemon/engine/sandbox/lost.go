package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
)

// A machine whose record cannot be read, as another version of this program
// wrote it, is not taken for one that ended: its control group says whether it
// runs. Nobody knows its first process and its supervisor then. It is asked to
// end through its runtime, killed with its group, and has ended when its group
// is empty.

// unreadable is what is told of such a machine.
const unreadable = "another version of this program started it, and left a record that cannot be read: shut it down and start it again"

// takeLost takes up a machine whose record says nothing, if it runs.
// Engine.mu is held.
func (e *Engine) takeLost(uuid string, r record, rerr error) (engine.Found, bool, error) {
	switch {
	case errors.Is(rerr, fs.ErrNotExist):
		return engine.Found{}, false, nil // no machine runs before its record is there
	case rerr == nil && r.Engine != "" && (r.Engine != e.options.Runtime || r.Supervisor != nil):
		return engine.Found{}, false, nil
	}
	controllers, err := findControllers()
	if err != nil {
		return engine.Found{}, false, err
	}
	g := group{uuid: uuid, controllers: controllers}
	if len(g.processes()) == 0 {
		return engine.Found{}, false, nil
	}
	e.log.Warn("a running machine has a record that cannot be read", "uuid", uuid, "error", rerr)
	m := &machine{uuid: uuid, name: r.Name, domain: r.Domain, limit: r.Memory, group: g, watch: &oomWatch{group: g},
		state: engine.Up, ended: make(chan struct{}), dropped: make(chan struct{})}
	if frozen, err := g.frozen(); err == nil && frozen {
		m.state = engine.Suspended
	}
	e.machines[uuid] = m
	if err := e.startFollowing(m); err != nil {
		return engine.Found{}, false, err
	}
	return engine.Found{UUID: uuid, Domain: m.domain, State: m.state, Trouble: unreadable}, true, nil
}

// awaitEnd waits for the end of the machine; it is false when cancel, a pipe,
// was closed before.
func (e *Engine) awaitEnd(m *machine, cancel *os.File, w *oomWatch) bool {
	if m.super != nil {
		return m.super.awaitEnd(cancel, w, func() { e.starved(m) })
	}
	const look = time.Second
	ended := false
	conn, err := cancel.SyscallConn()
	if err != nil {
		return false
	}
	// The error is that of a pipe that is closed, which nobody does here.
	_ = conn.Control(func(fd uintptr) {
		for fds := []unix.PollFd{{Fd: int32(fd)}}; !ended; {
			n, err := unix.Poll(fds, int(look.Milliseconds()))
			if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			ended = len(m.group.processes()) == 0
		}
	})
	return ended
}
