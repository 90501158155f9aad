// Package open opens files and links that other qubes send (qubes.OpenInVM,
// qubes.OpenURL, spec/services.md §3), and finds the programs that do it. It
// is to run in a process of its own, as the user in whose session things open.
package open

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// The services.
const (
	Service    = "qubes.OpenInVM"
	URLService = "qubes.OpenURL"
)

// HeaderSize is how many bytes the name has before a file's content.
const HeaderSize = 256

const viewOnly = "view-only-"

// Header is the name of a file as it is sent. Of a long one the end is kept,
// which tells its type.
func Header(name string, readOnly bool) []byte {
	prefix := ""
	if readOnly {
		prefix = viewOnly
	}
	if most := HeaderSize - 1 - len(prefix); len(name) > most {
		name = name[len(name)-most:]
	}
	b := make([]byte, HeaderSize)
	copy(b, prefix+name)
	return b
}

// ParseHeader reads the name of a file: characters that could mean something
// to somebody are '_'. A name with a '/', none at all, or one without its NUL
// is an error.
func ParseHeader(b [HeaderSize]byte) (name string, readOnly bool, err error) {
	if b[HeaderSize-1] != 0 {
		return "", false, errors.New("a file name that does not end")
	}
	text, _, _ := bytes.Cut(b[:], []byte{0})
	name, readOnly = strings.CutPrefix(string(text), viewOnly)
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return "", false, fmt.Errorf("%q is not the name of a file", name)
	}
	clean := []byte(name)
	for i, c := range clean {
		if !isAlnum(c) && !strings.ContainsRune("._-+@", rune(c)) {
			clean[i] = '_'
		}
	}
	return string(clean), readOnly, nil
}

func isAlnum(c byte) bool { return isLetter(c) || c >= '0' && c <= '9' }

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// Opener opens something and returns when the person is done with it.
type Opener func(ctx context.Context, target string) error

// File takes a file from in, opens it, and sends it to out if it has changed.
// tmp is the folder for it, source the name of the qube it comes from.
func File(ctx context.Context, in io.Reader, out io.Writer, tmp, source string, opener Opener) error {
	var head [HeaderSize]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return fmt.Errorf("the name of the file: %w", err)
	}
	name, readOnly, err := ParseHeader(head)
	if err != nil {
		return err
	}
	if strings.ContainsAny(source, "/*") || source == "" {
		return fmt.Errorf("%q is not the name of a qube", source)
	}
	dir, err := os.MkdirTemp(tmp, source+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, name)
	mode := os.FileMode(0o600)
	if readOnly {
		mode = 0o400
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, in, make([]byte, 64<<10))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	before, err := stamp(path)
	if err != nil {
		return err
	}
	if err := opener(ctx, path); err != nil {
		return err
	}
	if readOnly {
		return nil
	}
	after, err := stamp(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && after == before {
		return nil // removed, or as it was
	}
	if err != nil {
		return err
	}
	changed, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer changed.Close()
	_, err = io.Copy(out, changed)
	return err
}

// version tells one state of a file from another.
type version struct {
	sec, nsec, size int64
	inode           uint64
}

func stamp(path string) (version, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return version{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return version{}, fmt.Errorf("%s is no file any more", path)
	}
	return version{int64(st.Mtim.Sec), int64(st.Mtim.Nsec), st.Size, st.Ino}, nil
}

// URL takes one line from in and opens the link that it is.
func URL(ctx context.Context, in io.Reader, opener Opener) error {
	b, err := io.ReadAll(io.LimitReader(in, maxURL+2))
	if err != nil {
		return err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if err := CheckURL(line); err != nil {
		return err
	}
	return opener(ctx, line)
}

// maxURL bounds a link, in bytes.
const maxURL = 32 << 10

// CheckURL tells why s is not a link that is opened for other qubes: one of
// the web, without blanks and control characters.
func CheckURL(s string) error {
	web := strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "ftp://")
	if !web {
		return fmt.Errorf("%.80q is no link that can be opened: only http, https and ftp are", s)
	}
	if len(s) > maxURL {
		return fmt.Errorf("a link of more than %d bytes", maxURL)
	}
	if !utf8.ValidString(s) || strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 }) >= 0 {
		return fmt.Errorf("the link %.80q has blanks or control characters in it", s)
	}
	return nil
}

// LooksLikeURL tells a link on a command line from a file: a letter, then
// letters, digits or '+', then "://".
func LooksLikeURL(s string) bool {
	scheme, _, ok := strings.Cut(s, "://")
	if !ok || scheme == "" || !isLetter(scheme[0]) {
		return false
	}
	for i := range len(scheme) {
		if !isAlnum(scheme[i]) && scheme[i] != '+' {
			return false
		}
	}
	return true
}
