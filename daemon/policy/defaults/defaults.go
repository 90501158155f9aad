// Package defaults lays down the policy that a system begins with
// (assets.Policy), so that there is something to read and to change.
//
// Each file is laid down once: one that a person has changed or deleted stays
// so, because a rule that comes back could allow what was taken away. What
// was laid down, and with what content, stands in the file .laid-down beside
// the policy. A file that nobody has touched since follows its newer version.
package defaults

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cubicle/assets"
	"cubicle/daemon/paths"
)

// record is the name of the file that says what was laid down. It begins
// with a dot and is thus no part of the policy.
const record = ".laid-down"

// compat is the file that reads the folder of Qubes 4.0, and a fault where
// that is missing.
const compat = "35-compat.policy"

// Lay makes the policy's folders, without which every call is refused, and
// lays down what was never there. The group may change the policy.
func Lay(root paths.Root, group int) error {
	kept, runtime, legacy := root.PolicyFiles()
	for _, dir := range []string{kept, filepath.Join(kept, "include"), runtime} {
		if err := makeFolder(dir, group); err != nil {
			return fmt.Errorf("lay down the policy: %w", err)
		}
	}
	if err := lay(assets.Policy(), kept, isFolder(legacy), group); err != nil {
		return fmt.Errorf("lay down the policy: %w", err)
	}
	return nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func makeFolder(dir string, group int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(os.Chown(dir, -1, group), os.Chmod(dir, 0o775|fs.ModeSetgid))
}

func lay(from fs.FS, dir string, old bool, group int) error {
	laid, err := readRecord(dir)
	if err != nil {
		return err
	}
	before := maps.Clone(laid)
	err = fs.WalkDir(from, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || name == compat && !old {
			return err
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		write, err := wanted(filepath.Join(dir, name), text, laid[name])
		if err != nil {
			return err
		}
		if write {
			if err := replace(filepath.Join(dir, name), text, group); err != nil {
				return err
			}
			laid[name] = sum(text)
		}
		if laid[name] == "" {
			laid[name] = "-" // somebody else's file, and never ours
		}
		return nil
	})
	if maps.Equal(laid, before) {
		return err
	}
	// Also what an error has cut short is on record.
	return errors.Join(err, writeRecord(dir, laid, group))
}

// wanted tells whether a file is to be written: it was never there, or it is
// still what an earlier version has laid down.
func wanted(path string, text []byte, laid string) (bool, error) {
	now, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return laid == "", nil
	case err != nil:
		return false, err
	}
	return laid == sum(now) && laid != sum(text), nil
}

func sum(text []byte) string {
	s := sha256.Sum256(text)
	return hex.EncodeToString(s[:])
}

// replace writes a file so that no reader sees half of it.
func replace(path string, text []byte, group int) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Chown(-1, group), f.Chmod(0o664), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// readRecord reads the sums of the files that were laid down, in the format
// of sha256sum.
func readRecord(dir string) (map[string]string, error) {
	laid := map[string]string{}
	text, err := os.ReadFile(filepath.Join(dir, record))
	if errors.Is(err, fs.ErrNotExist) {
		return laid, nil
	}
	if err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if hash, name, ok := strings.Cut(lines.Text(), "  "); ok {
			laid[name] = hash
		}
	}
	return laid, nil
}

func writeRecord(dir string, laid map[string]string, group int) error {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(laid)) {
		fmt.Fprintf(&b, "%s  %s\n", laid[name], name)
	}
	if err := replace(filepath.Join(dir, record), b.Bytes(), group); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
