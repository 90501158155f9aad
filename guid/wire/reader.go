package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
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
// deprecated MFNDUMP and EXECUTE travel nowhere.
func (t Type) Travels(dir Direction) bool {
	switch t {
	case TypeDestroy, TypeMap, TypeConfigure, TypeClipboardData, TypeWindowFlags:
		return true
	case TypeCreate, TypeUnmap, TypeShmImage, TypeWMName, TypeDock, TypeWindowHints,
		TypeWMClass, TypeWindowDump, TypeCursor:
		return dir == ToDaemon
	case TypeKeyPress, TypeButton, TypeMotion, TypeCrossing, TypeFocus, TypeClose,
		TypeClipboardReq, TypeKeymapNotify, TypeWindowDumpAck, TypeResize:
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
	case TypeMap, TypeWindowFlags, TypeResize:
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

	patience time.Duration
	deadline Deadliner // nil: patience has no end
	armed    bool      // a deadline is set
}

// Deadliner is the part of a net.Conn that ends reads which take too long.
type Deadliner interface{ SetReadDeadline(time.Time) error }

// LimitPatience makes Next fail, with os.ErrDeadlineExceeded in the chain, when
// a message has begun to arrive and the rest of it does not within d. Silence
// between messages may last. conn is what the Reader reads from.
func (r *Reader) LimitPatience(conn Deadliner, d time.Duration) { r.deadline, r.patience = conn, d }

// NewReader returns a reader of messages that travel in direction dir, of a
// session at the negotiated version. It reads ahead: nobody else may read r.
func NewReader(r io.Reader, dir Direction, version Version) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10), dir: dir, version: version}
}

// Next returns the next message. A clean end between two messages is io.EOF.
func (r *Reader) Next() (WindowID, Message, error) {
	for {
		h, err := r.header()
		if err != nil {
			return 0, nil, err
		}
		if !h.Type.Travels(r.dir) && r.dir == ToAgent {
			if err := r.expect(int(min(h.Len, 1<<16))); err != nil {
				return 0, nil, err
			}
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

// header waits for a message, as long as it takes, and reads its header.
func (r *Reader) header() (Header, error) {
	if r.armed {
		r.armed = false
		if err := r.deadline.SetReadDeadline(time.Time{}); err != nil {
			return Header{}, err
		}
	}
	if _, err := r.r.Peek(1); err != nil {
		return Header{}, err
	}
	if err := r.expect(HeaderSize); err != nil {
		return Header{}, err
	}
	var head [HeaderSize]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return Header{}, fmt.Errorf("the stream ends within a header: %w", err)
	}
	return ParseHeader(head), nil
}

// expect sets the deadline for the next n bytes unless they are here already.
// A message's later parts renew it, so that it bounds the wait for each part;
// parts are few and bounded.
func (r *Reader) expect(n int) error {
	if r.deadline == nil || r.r.Buffered() >= n {
		return nil
	}
	r.armed = true
	return r.deadline.SetReadDeadline(time.Now().Add(r.patience))
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
	if err := r.expect(len(b)); err != nil {
		return err
	}
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
