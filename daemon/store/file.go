package store

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// read returns a file of ours, refusing one that is too large to be ours.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(raw) > maxFile {
		return nil, fmt.Errorf("read %s: larger than %d bytes", path, maxFile)
	}
	return raw, nil
}

// write replaces the file at path. Readers, also after a power cut, see the
// old text or the new one.
func write(path string, text []byte) error {
	tmp, err := writeTemp(path, text)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// writeTemp writes a new text for the file at path to a file beside it, and
// returns that one's path.
func writeTemp(path string, text []byte) (tmp string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), halfWritten(path)+"*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
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

// halfWritten begins the names of files that an interrupted write of the file
// at path may leave.
func halfWritten(path string) string { return "." + filepath.Base(path) + "." }

func syncDir(dir string) error {
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
