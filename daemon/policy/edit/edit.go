// Package edit changes the files of a policy as the services policy.* do
// (spec/policy.md §10): under a lock, only from the state that the caller
// knows, and only to a policy that can be read.
package edit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cubicle/daemon/durable"
	"cubicle/daemon/policy"
)

// Kind names an error as upstream's programs do.
type Kind string

// The kinds of errors.
const (
	General      Kind = "PolicyAdminException"
	BadToken     Kind = "PolicyAdminTokenException"
	NotFound     Kind = "PolicyAdminFileNotFoundException"
	BadProtocol  Kind = "PolicyAdminProtocolException"
	BadSyntax    Kind = "PolicyAdminSyntaxException"
	BadFileName  Kind = "PolicyAdminInvalidFileNameException"
	BadFilePlace Kind = "PolicyAdminInvalidFilePathException"
)

// Error is an error that a caller can act on.
type Error struct {
	Kind Kind
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

func failf(k Kind, format string, args ...any) error { return &Error{k, fmt.Errorf(format, args...)} }

// The tokens that name no state of a file.
const (
	AnyState = "any" // whatever it holds now
	NoFile   = "new" // it does not exist
)

const tokenPrefix = "sha256:"

// Editor changes the files in the first folder of a policy, and in the folder
// include below it.
type Editor struct {
	dirs policy.Dirs
	dir  string
}

// New returns an editor of the files in dirs.Policy[0].
func New(dirs policy.Dirs) *Editor { return &Editor{dirs, dirs.Policy[0]} }

// File names a file to edit.
type File struct {
	Name    string // without policy.Suffix
	Include bool   // in the folder include, where names have no suffix
}

func (e *Editor) path(f File) (string, error) {
	for i := 0; i < len(f.Name); i++ {
		c := f.Name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return "", failf(BadFileName, "%.80q is not the name of a policy's file: that has letters, digits, '_' and '-'", f.Name)
		}
	}
	switch {
	case f.Name == "" || len(f.Name) > 128:
		return "", failf(BadFileName, "a file's name has 1 to 128 characters")
	case f.Include:
		return filepath.Join(e.dir, "include", f.Name), nil
	case strings.ToLower(f.Name) != f.Name:
		return "", failf(BadFileName, "%q has capital letters: with such a file no call would be allowed", f.Name)
	}
	return filepath.Join(e.dir, f.Name+policy.Suffix), nil
}

// locked does something while nobody else edits.
func (e *Editor) locked(do func() error) error {
	dir, err := os.Open(e.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", e.dir, err)
	}
	return do()
}

// List names the files, sorted.
func (e *Editor) List(include bool) ([]string, error) {
	dir, suffix := e.dir, policy.Suffix
	if include {
		dir, suffix = filepath.Join(dir, "include"), ""
	}
	entries, err := os.ReadDir(dir)
	if include && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(entry.Name(), suffix); ok && name != "" && name[0] != '.' && !entry.IsDir() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Get reads a file, with the token of its state.
func (e *Editor) Get(f File) (token string, text []byte, err error) {
	path, err := e.path(f)
	if err != nil {
		return "", nil, err
	}
	err = e.locked(func() error {
		text, err = read(path)
		return err
	})
	return tokenOf(text), text, err
}

func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failf(NotFound, "there is no file %s", path)
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > policy.MaxFile {
		return nil, failf(General, "%s is not a policy's file", path)
	}
	return os.ReadFile(path)
}

func tokenOf(text []byte) string {
	sum := sha256.Sum256(text)
	return tokenPrefix + hex.EncodeToString(sum[:])
}

// match checks that a file is in the state that a token names.
func match(token, path string) error {
	text, err := read(path)
	missing, _ := errors.AsType[*Error](err)
	gone := missing != nil && missing.Kind == NotFound
	switch {
	case err != nil && !gone:
		return err
	case token == AnyState:
		return nil
	case token == NoFile:
		if !gone {
			return failf(BadToken, "the file %s exists already", path)
		}
		return nil
	case !strings.HasPrefix(token, tokenPrefix) || len(token) != len(tokenPrefix)+2*sha256.Size:
		return failf(BadProtocol, "%.80q is not a token", token)
	case gone:
		return failf(BadToken, "the file %s is gone", path)
	case tokenOf(text) != token:
		return failf(BadToken, "the file %s has changed meanwhile", path)
	}
	return nil
}

// Replace writes a file, if it is in the state that the token names and the
// policy can be read with it. On return it is on the disk.
func (e *Editor) Replace(f File, token string, text []byte) error {
	path, err := e.path(f)
	if err != nil {
		return err
	}
	if len(text) > policy.MaxFile {
		return failf(General, "a policy's file has at most %d bytes", policy.MaxFile)
	}
	if text == nil {
		text = []byte{}
	}
	return e.locked(func() error {
		if err := match(token, path); err != nil {
			return err
		}
		if err := e.check(path, text); err != nil {
			return err
		}
		return write(path, text)
	})
}

// ParseReplacement reads what policy.Replace gets: a token, a line's end, and
// the new content (spec/policy.md §10).
func ParseReplacement(raw []byte) (token string, text []byte, err error) {
	line, text, ok := bytes.Cut(raw, []byte("\n"))
	if !ok {
		return "", nil, failf(BadProtocol, "the content begins with a token and a line's end")
	}
	return string(line), text, nil
}

// Remove removes a file, if it is in the state that the token names and the
// policy can be read without it.
func (e *Editor) Remove(f File, token string) error {
	path, err := e.path(f)
	if err != nil {
		return err
	}
	return e.locked(func() error {
		if _, err := read(path); err != nil {
			return err
		}
		if err := match(token, path); err != nil {
			return err
		}
		if err := e.check(path, nil); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		return durable.SyncDir(filepath.Dir(path))
	})
}

func (e *Editor) check(path string, text []byte) error {
	if err := policy.Check(e.dirs, path, text); err != nil {
		return &Error{BadSyntax, err}
	}
	return nil
}

// Files names the files that hold rules for a service, in order: those of the
// folder by their names, others by their paths.
func (e *Editor) Files(service string) ([]string, error) {
	p, err := policy.Load(e.dirs)
	if err != nil {
		return nil, &Error{BadSyntax, err}
	}
	var names []string
	for _, file := range p.Files(service) {
		if filepath.Dir(file) == filepath.Clean(e.dir) {
			file = strings.TrimSuffix(filepath.Base(file), policy.Suffix)
		}
		names = append(names, file)
	}
	return names, nil
}

// write replaces a file so that no reader sees half of it. The file begins
// with a dot until it is whole: such a one is not part of a policy.
func write(path string, text []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o775); err != nil {
		return err
	}
	return durable.Write(path, text, func(f *os.File) error {
		if err := f.Chmod(0o664); err != nil {
			return err
		}
		return ownerOf(f, dir)
	})
}

// ownerOf gives a file the group of its folder, which may read the policy.
func ownerOf(f *os.File, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	return f.Chown(-1, int(st.Gid))
}
