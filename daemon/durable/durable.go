// Package durable replaces files so that readers, also after a power cut, see
// the old text or the new one: the text is written beside the file, synced and
// renamed, and the folder is synced. Most callers use Write.
package durable

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces the file at path. prepare, unless it is nil, is called with
// the new file before it takes the old one's place: to set its mode, which is
// 0600 without, or its owner.
func Write(path string, text []byte, prepare func(*os.File) error) error {
	tmp, err := Temp(path, text, prepare)
	if err != nil {
		return err
	}
	if err := Rename(tmp, path); err != nil {
		os.Remove(tmp) // no-op when only the folder could not be synced
		return err
	}
	return nil
}

// Temp writes a synced file beside path that Rename may put in its place, and
// returns its name. It begins with TempPrefix.
func Temp(path string, text []byte, prepare func(*os.File) error) (tmp string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), TempPrefix(path)+"*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err == nil && prepare != nil {
		err = prepare(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return f.Name(), nil
}

// TempPrefix begins the names of files that an interrupted Write of the file
// at path may leave in its folder: a dot, and the file's name.
func TempPrefix(path string) string { return "." + filepath.Base(path) + "." }

// Rename puts a file that is synced in its place, and syncs that folder.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// SyncDir makes what was made, renamed and removed in a folder last.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
