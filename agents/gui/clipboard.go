package gui

import (
	"unicode/utf8"

	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// clipboard is both directions of the clipboard (spec/gui-protocol.md §14). It
// moves only when the user asks for it in dom0.
type clipboard struct {
	copying bool     // dom0 has asked, and the owner has not answered
	target  x11.Atom // what the owner was asked for
	grows   bool     // the owner sends the text in parts (ICCCM §2.7.2, INCR)
	text    []byte   // what has come

	pasted []byte // what dom0 gave; offered while we own the selections
}

// clipboardLimit is the most bytes that a daemon of that version takes. One
// byte more than what may be copied tells a newer one that there is too much.
func clipboardLimit(v wire.Version) int {
	if v.Major() == 1 && v.Minor() < 8 {
		return wire.MaxClipboardOld
	}
	return wire.ClipboardTooBig
}

// onClipboardReq asks the owner of the clipboard for its text.
func (a *Agent) onClipboardReq() {
	owner, err := a.x.SelectionOwner(a.atoms.clipboard)
	if err != nil {
		return
	}
	if owner == 0 {
		a.sendClipboard(nil)
		return
	}
	a.clipboard = clipboard{copying: true, target: a.atoms.utf8String, pasted: a.clipboard.pasted}
	a.convert()
}

func (a *Agent) convert() {
	a.x.ConvertSelection(a.wm, a.atoms.clipboard, a.clipboard.target, a.atoms.qubesSelection, x11.CurrentTime)
}

// sendClipboard answers dom0. The window is ours, which dom0 does not know: no
// window is meant.
func (a *Agent) sendClipboard(text []byte) {
	a.clipboard.copying, a.clipboard.grows, a.clipboard.text = false, false, nil
	if a.session == nil {
		return
	}
	text = text[:min(len(text), clipboardLimit(a.session.version))]
	a.session.send(wire.WindowID(a.wm), wire.ClipboardData{Data: text})
}

// onSelectionNotify takes the owner's answer.
func (a *Agent) onSelectionNotify(e x11.SelectionNotifyEvent) {
	c := &a.clipboard
	if !c.copying || e.Selection != a.atoms.clipboard || e.Target != c.target {
		return
	}
	if e.Property == x11.AtomNone {
		if c.target == a.atoms.utf8String {
			c.target = x11.AtomString
			a.convert()
			return
		}
		c.copying = false // no text: upstream's agent gives no answer either
		return
	}
	p := a.takeSelection()
	if p.Type == a.atoms.incr {
		c.grows = true // deleting the property has asked for the first part
		return
	}
	a.sendClipboard(p.Data)
}

// onSelectionPart takes one part of a text that comes in parts; an empty one
// is its end.
func (a *Agent) onSelectionPart() {
	c := &a.clipboard
	if !c.grows {
		return
	}
	p := a.takeSelection()
	if len(p.Data) > 0 && len(c.text) < wire.ClipboardTooBig {
		c.text = append(c.text, p.Data...)
		return
	}
	a.sendClipboard(c.text)
}

// takeSelection reads and deletes what the owner has put on our window.
func (a *Agent) takeSelection() x11.Property {
	p, err := a.x.GetProperty(a.wm, a.atoms.qubesSelection, x11.AtomAny, wire.ClipboardTooBig)
	if err != nil {
		a.log.Warn("the clipboard cannot be read", "err", err)
	}
	a.x.DeleteProperty(a.wm, a.atoms.qubesSelection)
	return p
}

// onClipboardData offers dom0's text to the qube's programs.
func (a *Agent) onClipboardData(m wire.ClipboardData) {
	a.clipboard.pasted = m.Data
	a.x.SetSelectionOwner(a.wm, a.atoms.primary, x11.CurrentTime)
	a.x.SetSelectionOwner(a.wm, a.atoms.clipboard, x11.CurrentTime)
}

// onSelectionRequest gives dom0's text to a program that pastes.
func (a *Agent) onSelectionRequest(e x11.SelectionRequestEvent) {
	t := &a.atoms
	property := e.Property
	if property == x11.AtomNone { // a client of old (ICCCM §2.2)
		property = e.Target
	}
	switch e.Target {
	case t.targets:
		a.x.SetWords(e.Requestor, property, x11.AtomAtom, words(t.targets, t.utf8String, x11.AtomString, t.textPlain)...)
	case t.utf8String, t.textPlain:
		a.x.SetProperty(e.Requestor, property, e.Target, 8, cleanText(a.clipboard.pasted))
	case x11.AtomString:
		a.x.SetProperty(e.Requestor, property, x11.AtomString, 8, a.clipboard.pasted)
	default:
		property = x11.AtomNone
	}
	a.x.SendSelectionNotify(x11.SelectionNotifyEvent{Time: e.Time, Requestor: e.Requestor, Selection: e.Selection, Target: e.Target, Property: property})
}

// cleanText is text, or nothing when it is no UTF-8 or has control characters
// other than tabs and line ends.
func cleanText(text []byte) []byte {
	if !utf8.Valid(text) {
		return nil
	}
	for i, c := range text {
		switch {
		case c == '\n', c == '\t', c == '\r' && i+1 < len(text) && text[i+1] == '\n':
		case c < ' ', c == 0x7f:
			return nil
		}
	}
	return text
}

// onSelectionClear forgets dom0's text when something else was copied.
func (a *Agent) onSelectionClear(e x11.SelectionClearEvent) {
	if e.Selection == a.atoms.clipboard {
		a.clipboard.pasted = nil
	}
}
