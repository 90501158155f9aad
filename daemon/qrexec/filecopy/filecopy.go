// Package filecopy is the format in which trees of files pass between qubes
// (qubes.Filecopy, spec/services.md §2): the records of a stream, the
// receiver's answer, and the rules for names and links. It opens no files;
// package send and the agent's unpacker do.
//
// A stream is a sequence of records (Header, name, data) and an end record.
// Directories come twice: before their contents, and again after them.
package filecopy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"
)

// Bounds of the format, in bytes.
const (
	HeaderSize = 32
	MaxName    = 16383 // of a path, with its NUL
	MaxLink    = 16383 // of a link's text

	maxAnswerName = 16384 // that a sender reads
)

// File types in a mode, as in stat(2).
const (
	TypeMask = 0o170000
	TypeDir  = 0o040000
	TypeFile = 0o100000
	TypeLink = 0o120000

	PermMask = 0o7777
)

// Time is a file's time: seconds since 1970, which last until 2106.
type Time struct{ Sec, Nsec uint32 }

// TimeOf converts t; what is outside the format's range becomes its bounds.
func TimeOf(t time.Time) Time {
	switch sec := t.Unix(); {
	case sec < 0:
		return Time{}
	case sec > 1<<32-1:
		return Time{Sec: 1<<32 - 1}
	default:
		return Time{uint32(sec), uint32(t.Nanosecond())}
	}
}

// Valid tells whether the nanoseconds are less than a second.
func (t Time) Valid() bool { return t.Nsec < 1e9 }

// Header begins a record.
type Header struct {
	NameLen uint32 // with the final NUL; 0 ends the stream
	Mode    uint32 // as in stat(2)
	Size    uint64 // bytes of data that follow the name
	Atime   Time
	Mtime   Time
}

// AppendTo appends the header's HeaderSize bytes to b.
func (h Header) AppendTo(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, h.NameLen)
	b = le.AppendUint32(b, h.Mode)
	b = le.AppendUint64(b, h.Size)
	for _, v := range [...]uint32{h.Atime.Sec, h.Atime.Nsec, h.Mtime.Sec, h.Mtime.Nsec} {
		b = le.AppendUint32(b, v)
	}
	return b
}

// ParseHeader reads a header; nothing of it has been checked.
func ParseHeader(b [HeaderSize]byte) Header {
	le := binary.LittleEndian
	u := func(i int) uint32 { return le.Uint32(b[i:]) }
	return Header{
		NameLen: u(0), Mode: u(4), Size: le.Uint64(b[8:]),
		Atime: Time{u(16), u(20)}, Mtime: Time{u(24), u(28)},
	}
}

// Record is a header and its name, as they are sent.
func Record(name string, mode uint32, size uint64, atime, mtime Time) []byte {
	b := Header{uint32(len(name)) + 1, mode, size, atime, mtime}.AppendTo(make([]byte, 0, HeaderSize+len(name)+1))
	return append(append(b, name...), 0)
}

// End is the record that ends a stream.
func End() []byte { return make([]byte, HeaderSize) }

// Code is the error number of an answer: an errno of Linux, or one of those
// below. 0 is success.
type Code uint32

// CodeReported is the answer to a stream that ends inside a record: the other
// side knows why, and has said so.
const CodeReported Code = 31415926

// Error tells what went wrong, in words.
func (c Code) Error() string {
	if c == CodeReported {
		return "the stream ended in the middle of a file"
	}
	if c > 4095 {
		if n := -c; n <= 4095 { // old receivers forget the sign
			return syscall.Errno(n).Error()
		}
		return fmt.Sprintf("error %d", uint32(c))
	}
	return syscall.Errno(c).Error()
}

// Answer is what the receiver says once: after the end record or at the first
// error.
type Answer struct {
	Code    Code
	CRC     uint32 // of all bytes received, the end record included
	Name    string // of the last file
	HasName bool   // false: the answer ends after the CRC
}

const answerSize = 16 // bytes before the name

// Bytes is the answer as it is sent.
func (a Answer) Bytes() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(a.Code))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, uint64(a.CRC))
	if a.HasName {
		b = le.AppendUint32(b, uint32(len(a.Name)))
		b = append(b, a.Name...)
	}
	return b
}

// ReadAnswer reads an answer to its end. The name is made printable and cut at
// 16384 bytes. io.EOF means that there was no answer at all.
func ReadAnswer(r io.Reader) (Answer, error) {
	var b [answerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return Answer{}, err
	}
	le := binary.LittleEndian
	a := Answer{Code: Code(le.Uint32(b[:])), CRC: le.Uint32(b[8:])}
	var n [4]byte
	switch _, err := io.ReadFull(r, n[:]); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return a, nil
	case err != nil:
		return a, err
	}
	name, err := io.ReadAll(io.LimitReader(r, int64(min(le.Uint32(n[:]), maxAnswerName))))
	a.Name, a.HasName = printable(name), true
	return a, err
}

// printable replaces what could hurt a terminal or a message.
func printable(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		if c < 0x20 || c > 0x7e || c == '"' {
			c = '_'
		}
		s.WriteByte(c)
	}
	return s.String()
}

// Service is the name of the service, and AllowAllNames its argument for trees
// with names that are not Displayable.
const (
	Service       = "qubes.Filecopy"
	AllowAllNames = "allow-all-names"
)
