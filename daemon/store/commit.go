package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"cubicle/daemon/durable"
)

// journalFile lists the renames that finish a change of several files. While
// it exists the change has happened, whatever the files say.
const journalFile = ".change.json"

// change is one file of a change: its new text lies at From already.
type change struct {
	From string `json:"from"` // both relative to the store
	To   string `json:"to"`
}

// Commit writes records, and the system's state unless it is nil: all of them
// or, with an error, none. What it reports as done is on disk.
func (s *Store) Commit(records []Record, sys *System) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.finish(); err != nil {
		return fmt.Errorf("finish the last change: %w", err)
	}
	texts := map[string][]byte{} // by path below the store
	for _, r := range records {
		raw, err := r.encode()
		if err != nil {
			return fmt.Errorf("save %s: %w", r.Name, err)
		}
		texts[filepath.Join(Path(r.Class, r.Name), qubeFile)] = raw
	}
	if sys != nil {
		raw, err := sys.encode()
		if err != nil {
			return fmt.Errorf("save the system's state: %w", err)
		}
		texts[systemFile] = raw
	}
	undo, err := s.makeFolders(texts)
	if err == nil {
		err = s.writeAll(texts)
	}
	if err != nil {
		undo()
		return err
	}
	return nil
}

// makeFolders makes the folders of new qubes, and returns what takes them away
// again: they are empty, and nobody was told of them.
func (s *Store) makeFolders(texts map[string][]byte) (undo func(), err error) {
	var made []string
	undo = func() {
		for _, dir := range made {
			os.Remove(dir)
		}
	}
	for path := range texts {
		dir := filepath.Join(s.dir, filepath.Dir(path))
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			continue // what else is wrong with it shows when it is written to
		}
		if err := os.Mkdir(dir, 0o711); err != nil {
			return undo, fmt.Errorf("save: %w", err)
		}
		made = append(made, dir)
		if err := durable.SyncDir(filepath.Dir(dir)); err != nil {
			return undo, fmt.Errorf("save: %w", err)
		}
	}
	return undo, nil
}

func (s *Store) writeAll(texts map[string][]byte) error {
	if len(texts) == 1 {
		for path, text := range texts {
			if err := durable.Write(filepath.Join(s.dir, path), text, nil); err != nil {
				return fmt.Errorf("save: %w", err)
			}
		}
		return nil
	}
	// All that needs room comes first; then the journal decides; the renames
	// only carry out what it says.
	var changes []change
	drop := func() {
		for _, c := range changes {
			os.Remove(filepath.Join(s.dir, c.From))
		}
	}
	for path, text := range texts {
		tmp, err := durable.Temp(filepath.Join(s.dir, path), text, nil)
		if err != nil {
			drop()
			return fmt.Errorf("save: %w", err)
		}
		changes = append(changes, change{filepath.Join(filepath.Dir(path), filepath.Base(tmp)), path})
	}
	raw, err := json.Marshal(changes)
	if err == nil {
		err = durable.Write(filepath.Join(s.dir, journalFile), raw, nil)
	}
	if err != nil {
		drop()
		return fmt.Errorf("save: %w", errors.Join(err, remove(filepath.Join(s.dir, journalFile))))
	}
	s.unfinished = changes
	// The change stands: what fails now is done before the next one, or when
	// the store is loaded.
	_ = s.finish()
	return nil
}

// finish carries out the renames of the last change.
func (s *Store) finish() error {
	if s.unfinished == nil {
		return nil
	}
	if err := s.carryOut(s.unfinished); err != nil {
		return err
	}
	s.unfinished = nil
	return nil
}

func (s *Store) carryOut(changes []change) error {
	var dirs []string
	for _, c := range changes {
		to := filepath.Join(s.dir, c.To)
		if err := os.Rename(filepath.Join(s.dir, c.From), to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		dirs = append(dirs, filepath.Dir(to))
	}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		if err := durable.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return remove(filepath.Join(s.dir, journalFile))
}

// recover finishes the change that a crash interrupted.
func (s *Store) recover() error {
	raw, err := read(filepath.Join(s.dir, journalFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var changes []change
	if err := json.Unmarshal(raw, &changes); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(s.dir, journalFile), err)
	}
	for _, c := range changes {
		if !filepath.IsLocal(c.From) || !filepath.IsLocal(c.To) {
			return fmt.Errorf("%s: %q or %q lies elsewhere", filepath.Join(s.dir, journalFile), c.From, c.To)
		}
	}
	return s.carryOut(changes)
}

// remove deletes a file that may be gone already.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
