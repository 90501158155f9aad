package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Message is the body of a message. The window that it is about stands in the
// header.
type Message interface {
	Type() Type

	// appendBody appends the body's wire form.
	appendBody(b []byte) []byte
}

// Append appends header and body of m to b.
func Append(b []byte, window WindowID, m Message) []byte {
	start := len(b)
	b = Header{Type: m.Type(), Window: window}.AppendTo(b)
	b = m.appendBody(b)
	binary.LittleEndian.PutUint32(b[start+8:], uint32(len(b)-start-HeaderSize))
	return b
}

// Input, daemon to agent (spec/gui-protocol.md §8). Coordinates are relative
// to the window's top-left corner. EventType, Mode, Detail and State are X11's
// own numbers.
type (
	// KeyPress is a key going down (EventType 2) or up (3).
	KeyPress struct {
		EventType      uint32
		X, Y           int32
		State, Keycode uint32
	}
	// Button is a pointer button going down (EventType 4) or up (5).
	Button struct {
		EventType     uint32
		X, Y          int32
		State, Button uint32
	}
	// Motion is a pointer movement.
	Motion struct {
		X, Y          int32
		State, IsHint uint32
	}
	// Crossing is the pointer entering (EventType 7) or leaving (8).
	Crossing struct {
		EventType                  uint32
		X, Y                       int32
		State, Mode, Detail, Focus uint32
	}
	// Focus is the input focus arriving (EventType 9) or leaving (10).
	Focus struct{ EventType, Mode, Detail uint32 }

	// KeymapNotify tells which keys are down: bit k%8 of byte k/8. Its
	// window is 0.
	KeymapNotify struct{ Keys [32]byte }

	// Close asks a window to close.
	Close struct{}

	// WindowDumpAck confirms the oldest WindowDump that is not confirmed yet.
	WindowDumpAck struct{}

	// ClipboardReq asks for the agent's clipboard.
	ClipboardReq struct{}

	// Resize says that the daemon's screen has another size than XConf said:
	// its window is 0, its numbers are as in XConf. Upstream's daemon no
	// longer sends this type, and its agent skips it (§6).
	Resize struct{ Width, Height uint32 }
)

// Windows, agent to daemon (spec/gui-protocol.md §7); Destroy, Map, Configure
// and WindowFlags travel both ways.
type (
	// Create announces a window; Parent is meaningless.
	Create struct {
		X, Y                     int32
		Width, Height            uint32
		Parent, OverrideRedirect uint32
	}
	// Destroy ends a window; the daemon's answer frees its id.
	Destroy struct{}
	// Map shows a window. A daemon sends TransientFor 0.
	Map struct{ TransientFor, OverrideRedirect uint32 }
	// Unmap hides a window and detaches its buffer.
	Unmap struct{}
	// Configure is the geometry of a window's content in root coordinates;
	// OverrideRedirect is ignored (§9).
	Configure struct {
		X, Y                            int32
		Width, Height, OverrideRedirect uint32
	}
	// ShmImage says that a rectangle of the window's buffer has changed.
	ShmImage struct {
		X, Y          int32
		Width, Height uint32
	}
	// WMName is the title, up to the first NUL.
	WMName struct{ Text [128]byte }
	// WMClass is the window's class and instance name.
	WMClass struct{ Class, Name [64]byte }
	// WindowHints are size hints; Flags has the Hint bits.
	WindowHints struct {
		Flags                 uint32
		MinWidth, MinHeight   uint32
		MaxWidth, MaxHeight   uint32
		WidthInc, HeightInc   uint32
		BaseWidth, BaseHeight uint32
	}
	// WindowFlags sets and unsets Flag bits (§11.4).
	WindowFlags struct{ Set, Unset uint32 }
	// Dock asks for a place in the tray (§13).
	Dock struct{}
	// Cursor is the pointer's shape: 0, or CursorX11 with a glyph.
	Cursor struct{ Cursor uint32 }
)

// Bits of WindowHints.Flags, as in X11.
const (
	HintUSPosition = 0x1
	HintPPosition  = 0x4
	HintPMinSize   = 0x10
	HintPMaxSize   = 0x20
	HintPResizeInc = 0x40
	HintPBaseSize  = 0x100
)

// Bits of WindowFlags.
const (
	FlagFullscreen       = 1
	FlagDemandsAttention = 2
	FlagMinimize         = 4
)

// ClipboardData is text of a clipboard, opaque bytes (§14).
type ClipboardData struct{ Data []byte }

// DumpKind tells how a WindowDump names its pixels.
type DumpKind uint32

const (
	// DumpGrants is upstream's: Grants, one reference a page.
	DumpGrants DumpKind = 0
	// DumpRegion is ours: rows of Stride bytes from Offset on in the region
	// that both sides received out of band. An agent without a region never
	// sends it, because upstream's daemon ends the session over it (§10.5).
	DumpRegion DumpKind = 1
)

// WindowDump names the buffer of a window (§10.1): pixel (x,y) is the 4 bytes
// B, G, R, unused. Width and Height are the image's and may differ from the
// window's.
type WindowDump struct {
	Kind               DumpKind
	Width, Height, BPP uint32

	Grants []uint32 // DumpGrants only; rows follow each other without gaps

	Offset uint64 // DumpRegion only, bytes from the start of the region
	Stride uint32 // DumpRegion only, bytes from one row to the next
}

const (
	dumpHeadSize   = 16
	dumpRegionSize = dumpHeadSize + 12
)

func (KeyPress) Type() Type      { return TypeKeyPress }
func (Button) Type() Type        { return TypeButton }
func (Motion) Type() Type        { return TypeMotion }
func (Crossing) Type() Type      { return TypeCrossing }
func (Focus) Type() Type         { return TypeFocus }
func (KeymapNotify) Type() Type  { return TypeKeymapNotify }
func (Close) Type() Type         { return TypeClose }
func (WindowDumpAck) Type() Type { return TypeWindowDumpAck }
func (ClipboardReq) Type() Type  { return TypeClipboardReq }
func (Resize) Type() Type        { return TypeResize }
func (Create) Type() Type        { return TypeCreate }
func (Destroy) Type() Type       { return TypeDestroy }
func (Map) Type() Type           { return TypeMap }
func (Unmap) Type() Type         { return TypeUnmap }
func (Configure) Type() Type     { return TypeConfigure }
func (ShmImage) Type() Type      { return TypeShmImage }
func (WMName) Type() Type        { return TypeWMName }
func (WMClass) Type() Type       { return TypeWMClass }
func (WindowHints) Type() Type   { return TypeWindowHints }
func (WindowFlags) Type() Type   { return TypeWindowFlags }
func (Dock) Type() Type          { return TypeDock }
func (Cursor) Type() Type        { return TypeCursor }
func (ClipboardData) Type() Type { return TypeClipboardData }
func (WindowDump) Type() Type    { return TypeWindowDump }

func (m KeyPress) appendBody(b []byte) []byte      { return appendFixed(b, m) }
func (m Button) appendBody(b []byte) []byte        { return appendFixed(b, m) }
func (m Motion) appendBody(b []byte) []byte        { return appendFixed(b, m) }
func (m Crossing) appendBody(b []byte) []byte      { return appendFixed(b, m) }
func (m Focus) appendBody(b []byte) []byte         { return appendFixed(b, m) }
func (m KeymapNotify) appendBody(b []byte) []byte  { return append(b, m.Keys[:]...) }
func (m Close) appendBody(b []byte) []byte         { return b }
func (m WindowDumpAck) appendBody(b []byte) []byte { return b }
func (m ClipboardReq) appendBody(b []byte) []byte  { return b }
func (m Resize) appendBody(b []byte) []byte        { return appendFixed(b, m) }
func (m Create) appendBody(b []byte) []byte        { return appendFixed(b, m) }
func (m Destroy) appendBody(b []byte) []byte       { return b }
func (m Map) appendBody(b []byte) []byte           { return appendFixed(b, m) }
func (m Unmap) appendBody(b []byte) []byte         { return b }
func (m Configure) appendBody(b []byte) []byte     { return appendFixed(b, m) }
func (m ShmImage) appendBody(b []byte) []byte      { return appendFixed(b, m) }
func (m WMName) appendBody(b []byte) []byte        { return append(b, m.Text[:]...) }
func (m WMClass) appendBody(b []byte) []byte       { return appendFixed(b, m) }
func (m WindowHints) appendBody(b []byte) []byte   { return appendFixed(b, m) }
func (m WindowFlags) appendBody(b []byte) []byte   { return appendFixed(b, m) }
func (m Dock) appendBody(b []byte) []byte          { return b }
func (m Cursor) appendBody(b []byte) []byte        { return appendFixed(b, m) }
func (m ClipboardData) appendBody(b []byte) []byte { return append(b, m.Data...) }

func (m WindowDump) appendBody(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(m.Kind))
	b = le.AppendUint32(b, m.Width)
	b = le.AppendUint32(b, m.Height)
	b = le.AppendUint32(b, m.BPP)
	if m.Kind == DumpRegion {
		b = le.AppendUint64(b, m.Offset)
		return le.AppendUint32(b, m.Stride)
	}
	for _, ref := range m.Grants {
		b = le.AppendUint32(b, ref)
	}
	return b
}

// appendFixed appends a message of fixed-size fields, in their order.
func appendFixed(b []byte, m any) []byte {
	b, err := binary.Append(b, binary.LittleEndian, m)
	if err != nil {
		panic(err) // a field of a type without a fixed size: a defect of this package
	}
	return b
}

// Parse reads the body of a message of type t, which must be one that travels
// in direction dir. Every error is an offence of the sender.
func Parse(t Type, dir Direction, body []byte) (Message, error) {
	if !t.Travels(dir) {
		return nil, fmt.Errorf("%v does not travel %v", t, dir)
	}
	switch t {
	case TypeKeyPress:
		return parseFixed[KeyPress](body)
	case TypeButton:
		return parseFixed[Button](body)
	case TypeMotion:
		return parseFixed[Motion](body)
	case TypeCrossing:
		return parseFixed[Crossing](body)
	case TypeFocus:
		return parseFixed[Focus](body)
	case TypeKeymapNotify:
		return parseFixed[KeymapNotify](body)
	case TypeClose:
		return parseFixed[Close](body)
	case TypeWindowDumpAck:
		return parseFixed[WindowDumpAck](body)
	case TypeClipboardReq:
		return parseFixed[ClipboardReq](body)
	case TypeResize:
		return parseFixed[Resize](body)
	case TypeCreate:
		return parseFixed[Create](body)
	case TypeDestroy:
		return parseFixed[Destroy](body)
	case TypeMap:
		return parseFixed[Map](body)
	case TypeUnmap:
		return parseFixed[Unmap](body)
	case TypeConfigure:
		return parseFixed[Configure](body)
	case TypeShmImage:
		return parseFixed[ShmImage](body)
	case TypeWMName:
		return parseFixed[WMName](body)
	case TypeWMClass:
		return parseFixed[WMClass](body)
	case TypeWindowHints:
		return parseFixed[WindowHints](body)
	case TypeWindowFlags:
		return parseFixed[WindowFlags](body)
	case TypeDock:
		return parseFixed[Dock](body)
	case TypeCursor:
		return parseFixed[Cursor](body)
	case TypeClipboardData:
		return ClipboardData{Data: append([]byte(nil), body...)}, nil
	case TypeWindowDump:
		return parseDump(body)
	}
	return nil, fmt.Errorf("%v has no meaning", t)
}

func parseFixed[M Message](body []byte) (Message, error) {
	var m M
	if want := binary.Size(m); len(body) != want {
		return nil, fmt.Errorf("%v has %d bytes, not %d", m.Type(), len(body), want)
	}
	if _, err := binary.Decode(body, binary.LittleEndian, &m); err != nil {
		return nil, err
	}
	return m, nil
}

func parseDump(body []byte) (Message, error) {
	if err := checkDumpLen(uint32(len(body))); err != nil {
		return nil, err
	}
	u := binary.LittleEndian.Uint32
	m := WindowDump{Kind: DumpKind(u(body)), Width: u(body[4:]), Height: u(body[8:]), BPP: u(body[12:])}
	rest := body[dumpHeadSize:]
	switch m.Kind {
	case DumpGrants:
		m.Grants = make([]uint32, len(rest)/4)
		for i := range m.Grants {
			m.Grants[i] = u(rest[4*i:])
		}
	case DumpRegion:
		if len(body) != dumpRegionSize {
			return nil, fmt.Errorf("a region dump has %d bytes, not %d", len(body), dumpRegionSize)
		}
		m.Offset = binary.LittleEndian.Uint64(rest)
		m.Stride = u(rest[8:])
	default:
		return nil, fmt.Errorf("unknown dump kind %d", m.Kind)
	}
	return m, nil
}

func checkDumpLen(n uint32) error {
	switch {
	case n < dumpHeadSize:
		return errors.New("a dump without its head")
	case (n-dumpHeadSize)%4 != 0:
		return errors.New("a dump with a part of a reference")
	case (n-dumpHeadSize)/4 > MaxGrants:
		return fmt.Errorf("a dump of more than %d pages", MaxGrants)
	}
	return nil
}
