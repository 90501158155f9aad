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
	"cubicle/daemon/durable"
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
		write, now, err := wanted(filepath.Join(dir, name), text, laid[name])
		if err != nil {
			return err
		}
		if write {
			err = replace(filepath.Join(dir, name), text, group)
		}
		if err == nil {
			laid[name] = now
		}
		return err
	})
	if maps.Equal(laid, before) {
		return err
	}
	// Also what an error has cut short is on record.
	return errors.Join(err, writeRecord(dir, laid, group))
}

// foreign is what the record says of a file that was there before ours.
const foreign = "-"

// wanted tells whether a file is to be written, because it was never there or
// is still what an earlier version has laid down, and what the record is to
// say of it.
func wanted(path string, text []byte, laid string) (write bool, now string, err error) {
	there, err := os.ReadFile(path)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !missing:
		return false, laid, err
	case missing && laid != "":
		return false, laid, nil // somebody has deleted it
	case missing, laid == sum(there):
		return missing || laid != sum(text), sum(text), nil
	case laid == "" && bytes.Equal(there, text):
		return false, sum(text), nil // the record is older than the file: we were cut short
	case laid == "":
		return false, foreign, nil
	}
	return false, laid, nil
}

func sum(text []byte) string {
	s := sha256.Sum256(text)
	return hex.EncodeToString(s[:])
}

// replace puts a file in its place; its folder is synced at the end of all.
func replace(path string, text []byte, group int) error {
	tmp, err := durable.Temp(path, text, owned(group))
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// owned makes a file one that the group may change.
func owned(group int) func(*os.File) error {
	return func(f *os.File) error { return errors.Join(f.Chown(-1, group), f.Chmod(0o664)) }
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
	// The record comes last: a file that stands and is not on record would be
	// taken for a person's.
	if err := durable.SyncDir(filepath.Join(dir, "include")); err != nil {
		return err
	}
	return durable.Write(filepath.Join(dir, record), b.Bytes(), owned(group))
}
