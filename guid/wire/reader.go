package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Direction is the way that a message travels.
type Direction int

// The two directions.
const (
	ToDaemon Direction = iota // agent → daemon
	ToAgent                   // daemon → agent
)

func (d Direction) String() string {
	if d == ToDaemon {
		return "from the agent to the daemon"
	}
	return "from the daemon to the agent"
}

// Travels tells whether messages of type t travel in direction dir. The
// deprecated MFNDUMP, RESIZE and EXECUTE travel nowhere.
func (t Type) Travels(dir Direction) bool {
	switch t {
	case TypeDestroy, TypeMap, TypeConfigure, TypeClipboardData, TypeWindowFlags:
		return true
	case TypeCreate, TypeUnmap, TypeShmImage, TypeWMName, TypeDock, TypeWindowHints,
		TypeWMClass, TypeWindowDump, TypeCursor:
		return dir == ToDaemon
	case TypeKeyPress, TypeButton, TypeMotion, TypeCrossing, TypeFocus, TypeClose,
		TypeClipboardReq, TypeKeymapNotify, TypeWindowDumpAck:
		return dir == ToAgent
	}
	return false
}

// fixedLen is the body length in bytes of types that have a fixed one.
func (t Type) fixedLen() (n uint32, fixed bool) {
	switch t {
	case TypeDestroy, TypeUnmap, TypeClose, TypeClipboardReq, TypeDock, TypeWindowDumpAck:
		return 0, true
	case TypeCursor:
		return 4, true
	case TypeMap, TypeWindowFlags:
		return 8, true
	case TypeFocus:
		return 12, true
	case TypeMotion, TypeShmImage:
		return 16, true
	case TypeKeyPress, TypeButton, TypeConfigure:
		return 20, true
	case TypeCreate:
		return 24, true
	case TypeCrossing:
		return 28, true
	case TypeKeymapNotify:
		return 32, true
	case TypeWindowHints:
		return 36, true
	case TypeWMName, TypeWMClass:
		return 128, true
	}
	return 0, false
}

// Reader reads messages that travel in one direction. It is not safe for
// concurrent use.
//
// On the daemon's side (ToDaemon) every message that is not a well-formed one
// of the protocol is a *ProtocolError. On the agent's side (ToAgent) messages
// of unknown types are skipped by their length, as the protocol asks.
type Reader struct {
	r       *bufio.Reader
	dir     Direction
	version Version
	body    []byte
}

// NewReader returns a reader of messages that travel in direction dir, of a
// session at the negotiated version. It reads ahead: nobody else may read r.
func NewReader(r io.Reader, dir Direction, version Version) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10), dir: dir, version: version}
}

// Next returns the next message. A clean end between two messages is io.EOF.
func (r *Reader) Next() (WindowID, Message, error) {
	for {
		var head [HeaderSize]byte
		if _, err := io.ReadFull(r.r, head[:]); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("the stream ends within a header: %w", err)
			}
			return 0, nil, err
		}
		h := ParseHeader(head)
		if !h.Type.Travels(r.dir) && r.dir == ToAgent {
			if _, err := io.CopyN(io.Discard, r.r, int64(h.Len)); err != nil {
				return 0, nil, cut(h, err)
			}
			continue
		}
		n, err := r.bodyLen(h)
		if err != nil {
			return 0, nil, err
		}
		if err := r.readBody(h, n); err != nil {
			return 0, nil, err
		}
		m, err := Parse(h.Type, r.dir, r.body)
		if err != nil {
			return 0, nil, &ProtocolError{h, err.Error()}
		}
		return h.Window, m, nil
	}
}

// bodyLen decides how many bytes to read, before any is read. Before version
// 1.6 the announced length of a fixed type does not count
// (spec/gui-protocol.md §3).
func (r *Reader) bodyLen(h Header) (uint32, error) {
	if !h.Type.Travels(r.dir) {
		return 0, &ProtocolError{h, "not a message " + r.dir.String()}
	}
	if n, fixed := h.Type.fixedLen(); fixed {
		if h.Len != n && r.version >= version1_6 {
			return 0, &ProtocolError{h, fmt.Sprintf("the body must have %d bytes", n)}
		}
		return n, nil
	}
	switch h.Type {
	case TypeClipboardData:
		limit := uint32(ClipboardTooBig)
		if r.version < version1_8 {
			limit = MaxClipboardOld
		}
		if h.Len > limit {
			return 0, &ProtocolError{h, fmt.Sprintf("a clipboard has at most %d bytes", limit)}
		}
	case TypeWindowDump:
		if err := checkDumpLen(h.Len); err != nil {
			return 0, &ProtocolError{h, err.Error()}
		}
	}
	return h.Len, nil
}

func (r *Reader) readBody(h Header, n uint32) error {
	if uint32(cap(r.body)) < n {
		r.body = make([]byte, n)
	}
	r.body = r.body[:n]
	if h.Type == TypeWindowDump {
		// The head is judged before pages of references are waited for.
		if err := r.fill(h, r.body[:dumpHeadSize]); err != nil {
			return err
		}
		if kind := DumpKind(binary.LittleEndian.Uint32(r.body)); kind != DumpGrants && (kind != DumpRegion || n != dumpRegionSize) {
			return &ProtocolError{h, fmt.Sprintf("dump kind %d does not go with this length", kind)}
		}
		return r.fill(h, r.body[dumpHeadSize:])
	}
	return r.fill(h, r.body)
}

func (r *Reader) fill(h Header, b []byte) error {
	if _, err := io.ReadFull(r.r, b); err != nil {
		return cut(h, err)
	}
	return nil
}

// cut is the error of a stream that ends within a message.
func cut(h Header, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read the body of %v: %w", h.Type, err)
}
