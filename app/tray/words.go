package tray

import (
	"fmt"

	"cubicle/app/dom0"
	"cubicle/theme/label"
)

// status is a running qube's state, and its memory where that means
// something.
func status(q *dom0.Qube) string {
	word := stateWord(q.State)
	if q.MemoryUsed == 0 || q.State == dom0.Transient {
		return word
	}
	return word + ", " + memory(q.MemoryUsed)
}

func stateWord(s dom0.State) string {
	switch s {
	case dom0.Running:
		return "running"
	case dom0.Transient:
		return "starting"
	case dom0.Paused:
		return "paused"
	case dom0.Halting:
		return "shutting down"
	case dom0.Dying:
		return "stopping"
	}
	return string(s)
}

// memory writes bytes as the Manager does: a MB has 1024² bytes.
func memory(bytes uint64) string {
	const mb = 1 << 20
	if bytes < 10000*mb {
		return fmt.Sprintf("%d MB", (bytes+mb/2)/mb)
	}
	return fmt.Sprintf("%.1f GB", float64(bytes)/(1024*mb))
}

// verb is an action as it follows "Could not".
func verb(op string) string {
	switch op {
	case "shutdown":
		return "shut down"
	case "unpause":
		return "resume"
	case "app", "run":
		return "open a terminal in"
	}
	return op
}

// shapeOf is the shape that stands for a qube's class.
func shapeOf(class dom0.Class) label.Shape {
	switch class {
	case dom0.TemplateVM:
		return label.Ring
	case dom0.AdminVM:
		return label.Shield
	case "DispVM":
		return label.Dashed
	}
	return label.Square
}

// AtWork tells whether the qube runs; else it is on its way or paused.
func (c Chip) AtWork() bool { return c.State == dom0.Running }
