package gui

import (
	"strings"
	"sync"
	"unicode/utf8"

	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// props are what clients say about a window in its properties.
type props struct {
	title        string // UTF-8, of any length
	class, name  string
	hints        wire.WindowHints
	noInput      bool // WM_HINTS: the window manager shall not give it the focus
	takesFocus   bool // WM_PROTOCOLS: WM_TAKE_FOCUS
	deletes      bool // WM_PROTOCOLS: WM_DELETE_WINDOW
	transientFor x11.Window
}

// Most bytes of a property that are read.
const maxProp = 4096

// readProps reads all properties of a new window, in one round trip's time.
func (a *Agent) readProps(w *window) {
	t := &a.atoms
	all := []x11.Atom{x11.AtomWMName, t.netWMName, x11.AtomWMClass, x11.AtomWMNormalHints, x11.AtomWMHints,
		t.wmProtocols, x11.AtomWMTransientFor, t.netWMState}
	got := make([]x11.Property, len(all))
	var wg sync.WaitGroup
	for i, atom := range all {
		wg.Go(func() { got[i], _ = a.x.GetProperty(w.x, atom, x11.AtomAny, maxProp) }) // without an answer it is empty
	}
	wg.Wait()
	w.props.title = title(got[1], got[0], t)
	w.props.setClass(got[2])
	w.props.hints = sizeHints(got[3].Words())
	w.props.noInput = noInput(got[4].Words())
	w.props.setProtocols(got[5].Words(), t)
	w.props.transientFor = firstWindow(got[6].Words())
	w.flags = t.flags(got[7].Words())
}

// sendProps tells dom0 what a window says about itself.
func (a *Agent) sendProps(w *window) {
	a.send(w, w.props.hints)
	a.send(w, wire.WMName{Text: titleField(w.props.title)})
	a.send(w, wire.WMClass{Class: textField(w.props.class), Name: textField(w.props.name)})
}

// onProperty follows a change of one property.
func (a *Agent) onProperty(x x11.Window, atom x11.Atom) {
	w := a.byX[x]
	if w == nil {
		return
	}
	t := &a.atoms
	get := func(atom x11.Atom) x11.Property {
		p, err := a.x.GetProperty(x, atom, x11.AtomAny, maxProp)
		if err != nil {
			return x11.Property{}
		}
		return p
	}
	switch atom {
	case x11.AtomWMName, t.netWMName:
		text := title(get(t.netWMName), get(x11.AtomWMName), t)
		if text != w.props.title {
			w.props.title = text
			a.send(w, wire.WMName{Text: titleField(text)})
		}
	case x11.AtomWMClass:
		w.props.setClass(get(atom))
		a.send(w, wire.WMClass{Class: textField(w.props.class), Name: textField(w.props.name)})
	case x11.AtomWMNormalHints:
		hints := sizeHints(get(atom).Words())
		if hints != w.props.hints {
			w.props.hints = hints
			a.send(w, hints)
		}
	case x11.AtomWMHints:
		w.props.noInput = noInput(get(atom).Words())
	case t.wmProtocols:
		w.props.setProtocols(get(atom).Words(), t)
	case x11.AtomWMTransientFor:
		w.props.transientFor = firstWindow(get(atom).Words())
	case t.netWMState:
		if !w.mapped { // afterwards it is ours to write
			w.flags = t.flags(get(atom).Words())
		}
	}
}

// title is the window's title: EWMH's, else ICCCM's.
func title(net, wm x11.Property, t *atoms) string {
	if len(net.Data) > 0 && net.Format == 8 {
		return cutAtNUL(strings.ToValidUTF8(string(net.Data), "\uFFFD"))
	}
	if wm.Format != 8 {
		return ""
	}
	if wm.Type == t.utf8String {
		return cutAtNUL(strings.ToValidUTF8(string(wm.Data), "\uFFFD"))
	}
	var b strings.Builder
	for _, c := range wm.Data { // Latin-1
		b.WriteRune(rune(c))
	}
	return cutAtNUL(b.String())
}

func cutAtNUL(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s
}

// titleField is a title as it travels: at most 127 bytes and a NUL; a longer
// one is cut between characters and ends with an ellipsis
// (spec/gui-protocol.md §12.1).
func titleField(s string) [128]byte {
	var field [128]byte
	const most, ellipsis = len(field) - 1, "…"
	if len(s) > most {
		n := most - len(ellipsis)
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + ellipsis
	}
	copy(field[:most], s)
	return field
}

// textField is a name as it travels, cut to 63 bytes and a NUL.
func textField(s string) [64]byte {
	var field [64]byte
	copy(field[:len(field)-1], s)
	return field
}

// setClass reads WM_CLASS: instance name and class, each ended by a NUL.
func (p *props) setClass(prop x11.Property) {
	p.name, p.class = "", ""
	if prop.Format != 8 {
		return
	}
	name, rest, _ := strings.Cut(string(prop.Data), "\x00")
	p.name, p.class = name, cutAtNUL(rest)
}

// sizeHints reads WM_NORMAL_HINTS (ICCCM §4.1.2.3), of which old clients set
// 15 words only. Six flags travel (spec/gui-protocol.md §7).
func sizeHints(words []uint32) wire.WindowHints {
	const known = wire.HintUSPosition | wire.HintPPosition | wire.HintPMinSize | wire.HintPMaxSize | wire.HintPResizeInc | wire.HintPBaseSize
	var full [18]uint32
	if len(words) < 15 {
		return wire.WindowHints{}
	}
	copy(full[:], words)
	h := wire.WindowHints{Flags: full[0] & known}
	if len(words) < len(full)-1 {
		h.Flags &^= wire.HintPBaseSize
	}
	if h.Flags&wire.HintPMinSize != 0 {
		h.MinWidth, h.MinHeight = full[5], full[6]
	}
	if h.Flags&wire.HintPMaxSize != 0 {
		h.MaxWidth, h.MaxHeight = full[7], full[8]
	}
	if h.Flags&wire.HintPResizeInc != 0 {
		h.WidthInc, h.HeightInc = full[9], full[10]
	}
	if h.Flags&wire.HintPBaseSize != 0 {
		h.BaseWidth, h.BaseHeight = full[15], full[16]
	}
	const all = wire.HintPMinSize | wire.HintPResizeInc | wire.HintPBaseSize
	if h.Flags&all == all {
		h.MinWidth = roundUp(h.MinWidth, h.BaseWidth, h.WidthInc)
		h.MinHeight = roundUp(h.MinHeight, h.BaseHeight, h.HeightInc)
	}
	return h
}

// roundUp raises least so that it is base plus a multiple of inc.
func roundUp(least, base, inc uint32) uint32 {
	if inc == 0 || least <= base {
		return least
	}
	steps := (uint64(least-base) + uint64(inc) - 1) / uint64(inc)
	return uint32(min(uint64(base)+steps*uint64(inc), uint64(^uint32(0))))
}

// noInput reads WM_HINTS: InputHint is set and the input field is not.
func noInput(words []uint32) bool {
	const inputHint = 1
	return len(words) >= 2 && words[0]&inputHint != 0 && words[1] == 0
}

func (p *props) setProtocols(words []uint32, t *atoms) {
	p.takesFocus, p.deletes = false, false
	for _, word := range words {
		switch x11.Atom(word) {
		case t.wmTakeFocus:
			p.takesFocus = true
		case t.wmDeleteWindow:
			p.deletes = true
		}
	}
}

func firstWindow(words []uint32) x11.Window {
	if len(words) == 0 {
		return 0
	}
	return x11.Window(words[0])
}
