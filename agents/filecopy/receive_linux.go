// Package filecopy receives files from other qubes (qubes.Filecopy,
// spec/services.md §2): it unpacks a stream of a stranger into a folder of the
// user's, believing none of it.
//
// It is to run in a process of its own, as the user who gets the files.
package filecopy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	wire "cubicle/daemon/qrexec/filecopy"
)

// Folder is where files of other qubes land, below the user's home: each in a
// folder named after its source.
const Folder = "QubesIncoming"

// Incoming opens HOME/QubesIncoming/SOURCE, made for its owner alone where it
// is missing.
func Incoming(home, source string) (*os.File, error) {
	if source == "" || source == "." || source == ".." || strings.ContainsAny(source, "/\x00") {
		return nil, fmt.Errorf("%q is not the name of a qube", source)
	}
	dir := home
	for _, name := range []string{Folder, source} {
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// Receiver takes one stream.
type Receiver struct {
	Dir      *os.File // where it is unpacked
	AllNames bool     // takes names that cannot be displayed as well
}

// errSilent: a stream for which upstream's receiver has no answer.
var errSilent = errors.New("a time of more than 999999999 nanoseconds")

const bufferSize = 256 << 10

// Receive unpacks the stream from r, answers to w, and returns the exit status
// of the service: 0, or the error number of the answer modulo 256. The error
// tells what went wrong; what had arrived before stays.
func (rc Receiver) Receive(r io.Reader, w io.Writer) (int, error) {
	s := stream{
		r: bufio.NewReaderSize(r, bufferSize), buf: make([]byte, bufferSize),
		tree: tree{root: int(rc.Dir.Fd())}, allNames: rc.AllNames,
	}
	err := s.all()
	s.tree.close()
	if err == nil {
		err = sync(int(rc.Dir.Fd()))
	}
	if errors.Is(err, errSilent) {
		return 1, err
	}
	code := codeOf(err)
	a := wire.Answer{Code: code, CRC: s.crc, Name: s.name, HasName: s.hasName}
	if _, werr := w.Write(a.Bytes()); werr != nil {
		return 1, errors.Join(err, fmt.Errorf("answer: %w", werr))
	}
	return int(code % 256), err
}

// sync has the files on disk before the sender hears that they are.
func sync(dir int) error {
	err := unix.Syncfs(dir)
	if errors.Is(err, unix.ENOSYS) {
		unix.Sync()
		return nil
	}
	return named("write to disk", Folder, err)
}

// codeOf is the number by which the other side learns of err.
func codeOf(err error) wire.Code {
	var code wire.Code
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return code
	case errors.As(err, &errno):
		return wire.Code(errno)
	}
	return wire.Code(unix.EIO)
}

// stream is a stream that is being read.
type stream struct {
	r        *bufio.Reader
	crc      uint32
	buf      []byte
	tree     tree
	allNames bool

	name    string // of the last record, for the answer
	hasName bool
}

// all reads records until the end record.
func (s *stream) all() error {
	for {
		var b [wire.HeaderSize]byte
		if n, err := s.read(b[:]); n == 0 && errors.Is(err, io.EOF) {
			return fmt.Errorf("the stream ended without saying so: %w", wire.Code(unix.EREMOTEIO))
		} else if err != nil {
			return cut(err)
		}
		h := wire.ParseHeader(b)
		if h.NameLen == 0 {
			s.hasName = true // upstream's receiver tells the last name, or that it is empty
			return nil
		}
		if err := s.record(h); err != nil {
			return err
		}
	}
}

func (s *stream) record(h wire.Header) error {
	if h.NameLen > wire.MaxName {
		s.hasName = false
		return fmt.Errorf("a name of %d bytes: %w", h.NameLen, wire.Code(unix.ENAMETOOLONG))
	}
	if !h.Atime.Valid() || !h.Mtime.Valid() {
		return errSilent
	}
	name, err := s.text(uint64(h.NameLen))
	if err != nil {
		return err
	}
	s.name, s.hasName = name, true
	if err := wire.CheckPath(name, s.allNames); err != nil {
		return named("name", name, err)
	}
	switch h.Mode & wire.TypeMask {
	case wire.TypeFile:
		return s.file(name, h)
	case wire.TypeDir:
		return s.tree.makeFolder(name, h)
	case wire.TypeLink:
		if h.Size > wire.MaxLink {
			return fmt.Errorf("link %q of %d bytes: %w", name, h.Size, wire.Code(unix.ENAMETOOLONG))
		}
		target, err := s.text(h.Size)
		if err != nil {
			return err
		}
		if err := wire.CheckLink(name, target, s.allNames); err != nil {
			s.name = target
			return fmt.Errorf("link %q to %q: %w", name, target, err)
		}
		return s.tree.makeLink(name, target, h)
	}
	return fmt.Errorf("%q has mode %o, which is no file, folder or link: %w", name, h.Mode, wire.Code(unix.EINVAL))
}

// file receives a file's content.
func (s *stream) file(name string, h wire.Header) error {
	f, err := s.tree.create(name)
	if err != nil {
		return err
	}
	for left := h.Size; left > 0; {
		n, err := s.r.Read(s.buf[:min(left, uint64(len(s.buf)))])
		s.crc = crc32.Update(s.crc, crc32.IEEETable, s.buf[:n])
		left -= uint64(n)
		if n > 0 {
			if _, err := f.Write(s.buf[:n]); err != nil {
				f.abandon()
				return err
			}
		}
		if err != nil && left > 0 {
			f.abandon()
			return cut(err)
		}
	}
	return f.commit(h)
}

// text reads n bytes, up to the first NUL if there is one. n has been checked.
func (s *stream) text(n uint64) (string, error) {
	b := s.buf[:n]
	if _, err := s.read(b); err != nil {
		return "", cut(err)
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b), nil
}

func (s *stream) read(b []byte) (int, error) {
	n, err := io.ReadFull(s.r, b)
	s.crc = crc32.Update(s.crc, crc32.IEEETable, b[:n])
	return n, err
}

// cut is the error of a stream that ends inside a record.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return wire.CodeReported
	}
	return err
}
