// Package wire is the Qubes GUI protocol, version 1.8, in exact bytes
// (spec/gui-protocol.md): the messages between the daemon, which draws on the
// user's screen, and the agent in a qube, which is hostile in the threat model.
//
// Most callers shake hands with DaemonHandshake or AgentHandshake, read with a
// Reader and write with a Queue. A Reader judges the length of a message by
// its type before it allocates or reads; the values inside a message are the
// sender's and are judged by the receiver (guid/window for the daemon).
//
// All numbers are little-endian. The package never logs.
package wire

import (
	"encoding/binary"
	"fmt"
)

// Type is the number of a message kind.
type Type uint32

// The kinds of messages (spec/gui-protocol.md §6).
const (
	TypeKeyPress      Type = 124
	TypeButton        Type = 125
	TypeMotion        Type = 126
	TypeCrossing      Type = 127
	TypeFocus         Type = 128
	TypeResize        Type = 129 // upstream: obsolete
	TypeCreate        Type = 130
	TypeDestroy       Type = 131
	TypeMap           Type = 132
	TypeUnmap         Type = 133
	TypeConfigure     Type = 134
	TypeMFNDump       Type = 135 // deprecated, always refused
	TypeShmImage      Type = 136
	TypeClose         Type = 137
	TypeExecute       Type = 138 // obsolete
	TypeClipboardReq  Type = 139
	TypeClipboardData Type = 140
	TypeWMName        Type = 141
	TypeKeymapNotify  Type = 142
	TypeDock          Type = 143
	TypeWindowHints   Type = 144
	TypeWindowFlags   Type = 145
	TypeWMClass       Type = 146
	TypeWindowDump    Type = 147
	TypeCursor        Type = 148
	TypeWindowDumpAck Type = 149
)

func (t Type) String() string {
	switch t {
	case TypeKeyPress:
		return "KEYPRESS"
	case TypeButton:
		return "BUTTON"
	case TypeMotion:
		return "MOTION"
	case TypeCrossing:
		return "CROSSING"
	case TypeFocus:
		return "FOCUS"
	case TypeResize:
		return "RESIZE"
	case TypeCreate:
		return "CREATE"
	case TypeDestroy:
		return "DESTROY"
	case TypeMap:
		return "MAP"
	case TypeUnmap:
		return "UNMAP"
	case TypeConfigure:
		return "CONFIGURE"
	case TypeMFNDump:
		return "MFNDUMP"
	case TypeShmImage:
		return "SHMIMAGE"
	case TypeClose:
		return "CLOSE"
	case TypeExecute:
		return "EXECUTE"
	case TypeClipboardReq:
		return "CLIPBOARD_REQ"
	case TypeClipboardData:
		return "CLIPBOARD_DATA"
	case TypeWMName:
		return "WMNAME"
	case TypeKeymapNotify:
		return "KEYMAP_NOTIFY"
	case TypeDock:
		return "DOCK"
	case TypeWindowHints:
		return "WINDOW_HINTS"
	case TypeWindowFlags:
		return "WINDOW_FLAGS"
	case TypeWMClass:
		return "WMCLASS"
	case TypeWindowDump:
		return "WINDOW_DUMP"
	case TypeCursor:
		return "CURSOR"
	case TypeWindowDumpAck:
		return "WINDOW_DUMP_ACK"
	}
	return fmt.Sprintf("message type %d", uint32(t))
}

// WindowID is the agent's number for a window. Any value may occur; 0 is the
// qube's whole screen. Ids of different agents never mix.
type WindowID uint32

// Limits of the protocol (spec/gui-protocol.md §4), in pixels or bytes.
const (
	MaxWindowWidth  = 16384
	MaxWindowHeight = 6144
	PageSize        = 4096
	MaxGrants       = MaxWindowWidth * MaxWindowHeight * 4 / PageSize

	MaxClipboardOld = 65_000  // before version 1.8
	MaxClipboard    = 256_000 // from version 1.8
	ClipboardTooBig = MaxClipboard + 1

	CursorDefault = 0
	CursorX11     = 0x100 // flag: the rest is an index of X's cursor font
	CursorX11End  = 0x19a // exclusive
)

// HeaderSize is the size in bytes of the header before every message.
const HeaderSize = 12

// Header stands before every message (spec/gui-protocol.md §5).
type Header struct {
	Type   Type
	Window WindowID
	Len    uint32 // bytes of the body, as the sender claims
}

// AppendTo appends the header's wire form to b.
func (h Header) AppendTo(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(h.Type))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.Window))
	return binary.LittleEndian.AppendUint32(b, h.Len)
}

// ParseHeader reads a header; judging its values is the Reader's work.
func ParseHeader(b [HeaderSize]byte) Header {
	u := binary.LittleEndian.Uint32
	return Header{Type(u(b[0:])), WindowID(u(b[4:])), u(b[8:])}
}

// ProtocolError is an offence of the peer against the protocol. It ends the
// session.
type ProtocolError struct {
	Header Header
	Reason string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("%v for window %#x with %d bytes: %s", e.Header.Type, uint32(e.Header.Window), e.Header.Len, e.Reason)
}
