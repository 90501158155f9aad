package qubesdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Type is the kind of a message.
type Type uint8

// The kinds of messages (spec/platform.md §3.1). All but the first seven are
// replies; a WatchEvent may come at any time.
const (
	Read Type = iota
	Write
	MultiRead
	List
	Remove
	Watch
	Unwatch
	OK
	NoEntry
	Failed
	ReadReply
	MultiReadReply
	ListReply
	WatchEvent
)

// Sizes in bytes.
const (
	HeaderSize = 72
	MaxPath    = 63   // of a path
	MaxData    = 3071 // of a value

	pathAt   = 1
	pathSize = MaxPath + 1
	lengthAt = 68
)

// Message is one message of either protocol.
type Message struct {
	Type Type
	Path string // empty in the last of a series of replies
	Data string // no NUL bytes
}

// pathBytes are what a path is made of.
const pathBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@-"

// CheckPath tells why s cannot be the path of an entry.
func CheckPath(s string) error {
	switch {
	case !strings.HasPrefix(s, "/"):
		return fmt.Errorf("path %q does not begin with /", s)
	case strings.HasSuffix(s, "/"):
		return fmt.Errorf("path %q ends in /", s)
	}
	return checkBytes(s)
}

// checkBytes is the part of the check that prefixes pass as well.
func checkBytes(s string) error {
	switch {
	case len(s) > MaxPath:
		return fmt.Errorf("a path of %d bytes, at most %d are allowed", len(s), MaxPath)
	case strings.HasPrefix(s, "-"):
		return fmt.Errorf("path %q begins with -", s)
	}
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(pathBytes, s[i]) < 0 {
			return fmt.Errorf("path %q has bytes that are not allowed", s)
		}
	}
	return nil
}

// CheckValue tells why s cannot be the value of an entry.
func CheckValue(s string) error {
	if len(s) > MaxData {
		return fmt.Errorf("a value of %d bytes, at most %d are allowed", len(s), MaxData)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return errors.New("a value has no NUL bytes")
	}
	return nil
}

// AppendTo appends the wire form. The path and the data must fit.
func (m Message) AppendTo(b []byte) []byte {
	var h [HeaderSize]byte
	h[0] = byte(m.Type)
	copy(h[pathAt:pathAt+MaxPath], m.Path)
	binary.LittleEndian.PutUint32(h[lengthAt:], uint32(len(m.Data)))
	return append(append(b, h[:]...), m.Data...)
}

// BadMessage is the error of a message that breaks the rules of its form. It
// was read to its end, and the next one can be read.
type BadMessage struct {
	Path string // as far as it is one, else empty
	Err  error
}

func (e *BadMessage) Error() string { return "bad message: " + e.Err.Error() }

func (e *BadMessage) Unwrap() error { return e.Err }

// ReadMessage reads one message, and no byte more. It returns io.EOF at an
// end between messages, a *BadMessage for one that can be passed over, and
// any other error when the stream is of no use any more: then the sender
// announced more data than any message has.
func ReadMessage(r io.Reader) (Message, error) {
	var h [HeaderSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Message{}, err
	}
	m := Message{Type: Type(h[0])}
	length := binary.LittleEndian.Uint32(h[lengthAt:])
	if length > MaxData {
		return Message{}, fmt.Errorf("a message announces %d bytes of data, at most %d are allowed", length, MaxData)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(r, data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Message{}, err
	}
	path, _, ended := bytes.Cut(h[pathAt:pathAt+pathSize], []byte{0})
	var err error
	switch {
	case !ended:
		err = errors.New("the path has no end")
	case m.Type > WatchEvent:
		err = fmt.Errorf("there is no message of type %d", m.Type)
	default:
		err = checkBytes(string(path))
	}
	if err != nil {
		return Message{}, &BadMessage{Err: err}
	}
	m.Path, m.Data = string(path), string(data)
	if err := m.check(); err != nil {
		return Message{}, &BadMessage{m.Path, err}
	}
	return m, nil
}

// check applies the rules of the message's type.
func (m Message) check() error {
	switch m.Type {
	case Write, ReadReply, MultiReadReply:
		if err := CheckValue(m.Data); err != nil {
			return err
		}
	default:
		if m.Data != "" {
			return fmt.Errorf("a message of type %d has %d bytes of data", m.Type, len(m.Data))
		}
	}
	switch m.Type {
	case Read, Write:
		return CheckPath(m.Path)
	case MultiRead, List, OK, NoEntry, Failed:
		return nil // a prefix, or an echo
	case MultiReadReply, ListReply:
		if m.Path == "" {
			if m.Data != "" {
				return errors.New("the end of a series has data")
			}
			return nil
		}
		return CheckPath(m.Path)
	}
	// Remove, Watch, Unwatch and WatchEvent may name a subtree.
	if m.Path == "/" {
		return nil
	}
	return CheckPath(strings.TrimSuffix(m.Path, "/"))
}
