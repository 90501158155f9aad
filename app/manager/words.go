package manager

import (
	"fmt"
	"strings"
	"time"

	"fyne.io/fyne/v2"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/app/dom0"
	"cubicle/theme"
	"cubicle/theme/label"
)

// stateFace is a state as people see it: a word, a shape and an ink.
type stateFace struct {
	word string
	icon string // SVG with %s for the ink
	ink  fyne.ThemeColorName
}

// The shapes differ without their colours.
const (
	discShape     = `<circle cx="12" cy="12" r="7" fill="%[1]s"/>`
	ringShape     = `<circle cx="12" cy="12" r="6" fill="none" stroke="%[1]s" stroke-width="2"/>`
	halfShape     = `<circle cx="12" cy="12" r="6" fill="none" stroke="%[1]s" stroke-width="2"/><path d="M12 5a7 7 0 0 0 0 14z" fill="%[1]s"/>`
	sinkingShape  = `<circle cx="12" cy="12" r="6" fill="none" stroke="%[1]s" stroke-width="2"/><path d="M5 12a7 7 0 0 0 14 0z" fill="%[1]s"/>`
	barsShape     = `<rect x="6" y="5" width="4" height="14" rx="1" ry="1" fill="%[1]s"/><rect x="14" y="5" width="4" height="14" rx="1" ry="1" fill="%[1]s"/>`
	triangleShape = `<path d="M12 4.500L20.500 19H3.500z" fill="none" stroke="%[1]s" stroke-width="2" stroke-linejoin="round"/><path d="M11 10h2v4.500h-2zM11 15.500h2v2h-2z" fill="%[1]s"/>`
)

// faceOf is how a qube's state looks.
func faceOf(q *dom0.Qube) stateFace {
	if q.Problem != "" || q.State == dom0.NA {
		return stateFace{"broken", triangleShape, fynetheme.ColorNameError}
	}
	switch q.State {
	case dom0.Running:
		return stateFace{"running", discShape, fynetheme.ColorNameSuccess}
	case dom0.Transient:
		return stateFace{"starting", halfShape, fynetheme.ColorNameWarning}
	case dom0.Paused:
		return stateFace{"paused", barsShape, theme.Weak}
	case dom0.Halting:
		return stateFace{"shutting down", sinkingShape, fynetheme.ColorNameWarning}
	case dom0.Dying:
		return stateFace{"stopping", sinkingShape, fynetheme.ColorNameWarning}
	case dom0.Crashed:
		return stateFace{"crashed", triangleShape, fynetheme.ColorNameError}
	}
	return stateFace{"halted", ringShape, theme.Muted}
}

// isUp reports whether the qube has a machine.
func isUp(q *dom0.Qube) bool { return q.State.IsUp() }

func isBroken(q *dom0.Qube) bool {
	return q.Problem != "" || q.State == dom0.NA || q.State == dom0.Crashed
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

// classWord is a class in words that begin a sentence.
func classWord(class dom0.Class) string {
	switch class {
	case dom0.AppVM:
		return "App qube"
	case dom0.TemplateVM:
		return "Template"
	case dom0.AdminVM:
		return "Administrative domain"
	}
	return string(class)
}

// size writes bytes on a disk with a decimal unit, three digits at most.
func size(bytes uint64) string {
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes)/1000, 0
	units := []string{"kB", "MB", "GB", "TB", "PB", "EB"}
	for value >= 999.5 && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	if value < 9.95 {
		return fmt.Sprintf("%.1f %s", value, units[unit])
	}
	return fmt.Sprintf("%.0f %s", value, units[unit])
}

// memory writes bytes as qubes' memory is set: a MB has 1024² bytes.
func memory(bytes uint64) string {
	const mb = 1 << 20
	if bytes < 10000*mb {
		return fmt.Sprintf("%d MB", (bytes+mb/2)/mb)
	}
	return fmt.Sprintf("%.1f GB", float64(bytes)/(1024*mb))
}

// since writes a moment so that it can be told from yesterday's.
func since(t, now time.Time) string {
	if y, d := now.YearDay(), t.YearDay(); t.Year() == now.Year() && y == d {
		return t.Format("15:04")
	}
	return t.Format("2 Jan 15:04")
}

// jobWord is what a job's kind does, as "start" in "Could not start work".
func jobWord(kind string) string {
	switch kind {
	case "shutdown":
		return "shut down"
	case "unpause":
		return "resume"
	case "app":
		return "open an application in"
	case "run":
		return "run a command in"
	}
	return kind
}

// jobDoing is a job's kind as it runs, as "starting".
func jobDoing(kind string) string {
	switch kind {
	case "start":
		return "starting"
	case "shutdown":
		return "shutting down"
	case "kill":
		return "stopping"
	case "pause":
		return "pausing"
	case "unpause":
		return "resuming"
	case "create":
		return "creating"
	case "clone":
		return "cloning"
	case "remove":
		return "removing"
	case "app", "run":
		return "opening"
	}
	return kind
}

// jobStep is the last part of a job's text: "booting" of
// "Starting work — booting, 1.2 s".
func jobStep(text string) string {
	if _, step, found := strings.Cut(text, " — "); found {
		return step
	}
	return ""
}

// count writes a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
