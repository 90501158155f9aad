// Package send is the sender of file copies (spec/services.md §2): it looks
// at the files that are to go, and sends them as a stream. Programs in qubes
// and dom0's use it.
package send

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/filecopy"
)

// Files are files and folders that may be sent, as Inspect saw them.
type Files struct {
	Bytes    uint64 // of all regular files
	Count    int    // of everything
	AllNames bool   // some name is not Displayable: the receiver must allow that

	paths []string
}

// Service is the service to call, with its argument.
func (f *Files) Service() string {
	if f.AllNames {
		return filecopy.Service + "+" + filecopy.AllowAllNames
	}
	return filecopy.Service
}

// Inspect looks at all that paths name, folders with their contents. What no
// receiver would take is an error that names it: links that could lead out,
// devices, sockets and pipes, names that are too long, two files of the same
// name.
func Inspect(ctx context.Context, paths []string) (*Files, error) {
	f := &Files{}
	tops := make(map[string]string)
	for _, path := range paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if abs == "/" {
			return nil, errors.New("/ has no name by which it could be copied")
		}
		if other, ok := tops[filepath.Base(abs)]; ok {
			return nil, fmt.Errorf("%s and %s would have the same name", other, path)
		}
		tops[filepath.Base(abs)] = path
		f.paths = append(f.paths, abs)
	}
	err := f.walk(ctx, func(e entry) error {
		if e.after {
			return nil
		}
		f.Count++
		f.AllNames = f.AllNames || !filecopy.Displayable(e.path)
		switch e.stat.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			f.Bytes += uint64(e.stat.Size)
		case unix.S_IFLNK:
			target, err := e.target()
			if err != nil {
				return err
			}
			f.AllNames = f.AllNames || !filecopy.Displayable(target)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Remove removes the files, after they have been moved.
func (f *Files) Remove() error {
	var errs []error
	for _, path := range f.paths {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// RefusedError is a receiver's answer that is not success.
type RefusedError struct {
	Code filecopy.Code
	Name string // of the file, printable; may be empty
}

func (e *RefusedError) Error() string {
	switch {
	case e.Code == filecopy.Code(unix.EEXIST):
		return fmt.Sprintf("%q is there already; move or rename it, there or here", e.Name)
	case e.Name == "":
		return "the other qube: " + e.Code.Error()
	}
	return fmt.Sprintf("the other qube cannot take %q: %v", e.Name, e.Code)
}

func (e *RefusedError) Unwrap() error { return e.Code }

// ErrNoAnswer: the other side ended without a word.
var ErrNoAnswer = errors.New("the other qube has not confirmed the copy")

// ErrDamaged: the other side has received other bytes than were sent.
var ErrDamaged = errors.New("the files arrived damaged (their checksum differs)")

// progressStep is how many bytes go between two calls of a progress function.
const progressStep = 1 << 20

// A file's bytes are read in blocks. They pass the smaller buffer by, which
// gathers what is short.
const (
	bufferSize = 64 << 10
	blockSize  = 256 << 10
)

// Send writes the files to w and reads the receiver's answer, which may come
// early. progress, which may be nil, is called with the bytes of files sent
// so far. Files that have changed since Inspect are sent as they are now, if
// they still may be.
func (f *Files) Send(ctx context.Context, w io.Writer, answer io.Reader, progress func(sent uint64)) error {
	type answered struct {
		a   filecopy.Answer
		err error
	}
	answers := make(chan answered, 1)
	go func() {
		a, err := filecopy.ReadAnswer(answer)
		answers <- answered{a, err}
	}()
	s := &sender{w: bufio.NewWriterSize(w, bufferSize), buf: make([]byte, blockSize), progress: progress}
	// An answer before the end is an error: nothing more needs to be sent.
	var early *answered
	s.interrupted = func() error {
		select {
		case a := <-answers:
			early = &a
			return errEarly
		case <-ctx.Done():
			return ctx.Err()
		default:
			return nil
		}
	}
	err := f.walk(ctx, s.send)
	if err == nil {
		if err = s.write(filecopy.End()); err == nil {
			err = s.w.Flush()
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var local *localError
	if errors.As(err, &local) {
		return local.err // our own fault: the other side waits for more
	}
	if early == nil {
		select {
		case a := <-answers:
			early = &a
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch {
	case early.err != nil:
		return ErrNoAnswer
	case early.a.Code != 0:
		return &RefusedError{early.a.Code, early.a.Name}
	case err != nil: // success, and yet not all was taken
		return ErrNoAnswer
	case early.a.CRC != s.crc:
		return ErrDamaged
	}
	return nil
}

var errEarly = errors.New("there is an answer already")

// localError is a fault of ours, not of the channel.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// sender writes one stream.
type sender struct {
	w           *bufio.Writer
	crc         uint32
	buf         []byte
	sent, told  uint64
	progress    func(uint64)
	interrupted func() error
}

func (s *sender) write(b []byte) error {
	s.crc = crc32.Update(s.crc, crc32.IEEETable, b)
	_, err := s.w.Write(b)
	return err
}

func (s *sender) send(e entry) error {
	if err := s.interrupted(); err != nil {
		return err
	}
	switch e.stat.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := e.target()
		if err != nil {
			return &localError{err}
		}
		if err := s.record(e.path, e.stat, uint64(len(target))); err != nil {
			return err
		}
		return s.write([]byte(target))
	case unix.S_IFREG:
		return s.file(e)
	}
	return s.record(e.path, e.stat, 0)
}

func (s *sender) record(path string, st unix.Stat_t, size uint64) error {
	return s.write(filecopy.Record(path, st.Mode, size, timeOf(st.Atim), timeOf(st.Mtim)))
}

func timeOf(t unix.Timespec) filecopy.Time {
	return filecopy.Time{Sec: uint32(min(max(t.Sec, 0), 1<<32-1)), Nsec: uint32(t.Nsec)}
}

// file sends a regular file: as many bytes as it has when it is opened.
func (s *sender) file(e entry) error {
	f, err := e.open()
	if err != nil {
		return &localError{err}
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &localError{fmt.Errorf("%s: %w", e.path, err)}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return &localError{fmt.Errorf("%s is no file any more", e.path)}
	}
	if err := s.record(e.path, st, uint64(st.Size)); err != nil {
		return err
	}
	for left := st.Size; left > 0; {
		n, err := f.Read(s.buf[:min(left, int64(len(s.buf)))])
		if n > 0 {
			left -= int64(n)
			if werr := s.write(s.buf[:n]); werr != nil {
				return werr
			}
			if err := s.tell(n); err != nil {
				return err
			}
		}
		if err == io.EOF && left > 0 {
			return &localError{fmt.Errorf("%s became shorter while it was sent", e.path)}
		}
		if err != nil && err != io.EOF {
			return &localError{err}
		}
	}
	return nil
}

// tell counts n bytes and reports them now and then.
func (s *sender) tell(n int) error {
	s.sent += uint64(n)
	if s.sent-s.told < progressStep {
		return nil
	}
	s.told = s.sent
	if s.progress != nil {
		s.progress(s.sent)
	}
	return s.interrupted()
}
