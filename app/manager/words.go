package manager

import (
	"strings"
	"time"

	"fyne.io/fyne/v2"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme"
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
		return stateFace{words.T("broken"), triangleShape, fynetheme.ColorNameError}
	}
	switch q.State {
	case dom0.Running:
		return stateFace{words.State(q.State), discShape, fynetheme.ColorNameSuccess}
	case dom0.Transient:
		return stateFace{words.State(q.State), halfShape, fynetheme.ColorNameWarning}
	case dom0.Paused:
		return stateFace{words.State(q.State), barsShape, theme.Weak}
	case dom0.Halting:
		return stateFace{words.State(q.State), sinkingShape, fynetheme.ColorNameWarning}
	case dom0.Dying:
		return stateFace{words.State(q.State), sinkingShape, fynetheme.ColorNameWarning}
	case dom0.Crashed:
		return stateFace{words.State(q.State), triangleShape, fynetheme.ColorNameError}
	}
	return stateFace{words.State(q.State), ringShape, theme.Muted}
}

// isUp reports whether the qube has a machine.
func isUp(q *dom0.Qube) bool { return q.State.IsUp() }

func isBroken(q *dom0.Qube) bool {
	return q.Problem != "" || q.State == dom0.NA || q.State == dom0.Crashed
}

// classWord is a class in words that begin a sentence.
func classWord(class dom0.Class) string {
	switch class {
	case dom0.AppVM:
		return words.T("App qube")
	case dom0.TemplateVM:
		return words.T("Template")
	case dom0.StandaloneVM:
		return words.T("Standalone qube")
	case dom0.DispVM:
		return words.T("Disposable")
	case dom0.AdminVM:
		return words.T("Administrative domain")
	}
	return string(class)
}

func size(bytes uint64) string { return words.Size(bytes) }

// since writes a moment so that it can be told from yesterday's.
func since(t, now time.Time) string {
	if y, d := now.YearDay(), t.YearDay(); t.Year() == now.Year() && y == d {
		return t.Format("15:04")
	}
	return words.T("%d %s %s", t.Day(), words.Known(t.Format("Jan")), t.Format("15:04"))
}

// jobDoing is a job's kind as it runs, as "starting".
func jobDoing(kind string) string {
	switch kind {
	case "start":
		return words.T("starting")
	case "shutdown":
		return words.T("shutting down")
	case "kill":
		return words.T("stopping")
	case "pause":
		return words.T("pausing")
	case "unpause":
		return words.T("resuming")
	case "create":
		return words.T("creating")
	case "clone":
		return words.T("cloning")
	case "remove":
		return words.T("removing")
	case "app", "run":
		return words.T("opening")
	}
	return kind
}

// jobText is what a job is doing, in the language of the window: the daemon's
// own words are English.
func jobText(j dom0.Job) string {
	if words.Language() == "en" && j.Text != "" {
		return j.Text
	}
	text := string(j.Qube) + ": " + jobDoing(j.Kind)
	if step := jobStep(j.Text); step != "" {
		text += " — " + step
	}
	return text
}

// jobStep is the last part of a job's text: "booting" of
// "Starting work — booting, 1.2 s".
func jobStep(text string) string {
	_, step, found := strings.Cut(text, " — ")
	if !found {
		return ""
	}
	step, rest, more := strings.Cut(step, ", ")
	step = words.Known(step)
	if more {
		step += ", " + rest
	}
	return step
}
