package file

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/durable"
	"cubicle/daemon/storage"
)

// The endings of a volume's files.
const (
	endClean   = ".img"
	endDirty   = "-dirty.img"
	endBase    = "-base.img"
	endOverlay = "-overlay.img"
	endMarker  = ".vol"
)

// files names the files of one volume; its value is their common beginning.
type files string

func (p *Pool) files(vid storage.VID) files { return files(filepath.Join(p.dir, string(vid))) }

func (f files) clean() string   { return string(f) + endClean }
func (f files) dirty() string   { return string(f) + endDirty }
func (f files) base() string    { return string(f) + endBase }
func (f files) overlay() string { return string(f) + endOverlay }
func (f files) marker() string  { return string(f) + endMarker }

func (f files) exists() bool {
	return present(f.clean()) || present(f.dirty()) || present(f.marker())
}

// inNewFolder runs make with the volume's folder there and syncs it. Folders
// and half-made files are gone again when make fails.
func (f files) inNewFolder(create func() error) (err error) {
	dir := filepath.Dir(string(f))
	made, err := makeFolders(dir)
	defer func() {
		if err == nil {
			return
		}
		os.Remove(f.clean() + "~")
		for _, d := range slices.Backward(made) {
			os.Remove(d)
		}
	}()
	if err != nil {
		return err
	}
	if err := create(); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// makeFolders makes dir and its parents and returns those it made, outermost
// first.
func makeFolders(dir string) (made []string, err error) {
	if present(dir) {
		return nil, nil
	}
	parent := filepath.Dir(dir)
	if made, err = makeFolders(parent); err != nil {
		return made, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return made, nil
		}
		return made, err
	}
	return append(made, dir), durable.SyncDir(parent)
}

// revision is an older committed state.
type revision struct {
	n    int
	name string // "<n>@<time>Z"
}

func (f files) revision(r revision) string { return f.clean() + "." + r.name }

// revisions lists the older states, oldest first.
func (f files) revisions() ([]revision, error) {
	entries, err := os.ReadDir(filepath.Dir(string(f)))
	if err != nil {
		return nil, err
	}
	prefix := filepath.Base(f.clean()) + "."
	var list []revision
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), prefix)
		number, _, at := strings.Cut(name, "@")
		n, err := strconv.Atoi(number)
		if !ok || !at || err != nil || strings.HasSuffix(name, "~") {
			continue
		}
		list = append(list, revision{n, name})
	}
	slices.SortFunc(list, func(a, b revision) int { return cmp.Compare(a.n, b.n) })
	return list, nil
}

// commit makes the state in use the committed one.
func (f files) commit(s storage.Spec) error {
	if err := syncFile(f.dirty()); err != nil {
		return err
	}
	return f.replace(f.dirty(), s)
}

// replace makes image, which is synced, the committed state. The old one
// becomes a revision; of the revisions, those that are kept stay and the
// newest of the others, as many as the Spec says.
func (f files) replace(image string, s storage.Spec) error {
	list, err := f.revisions()
	if err != nil {
		return err
	}
	if st, err := os.Stat(f.clean()); err == nil && s.Revisions > 0 {
		n := 1
		if len(list) > 0 {
			n = list[len(list)-1].n + 1
		}
		r := revision{n, fmt.Sprintf("%d@%sZ", n, st.ModTime().UTC().Format("2006-01-02T15:04:05"))}
		// A link first: there is a committed state at every moment. Recover
		// knows a revision that is the committed state itself.
		if err := os.Link(f.clean(), f.revision(r)); err != nil {
			return err
		}
		list = append(list, r)
	}
	// The time names the version.
	now := time.Now()
	if err := os.Chtimes(image, now, now); err != nil {
		return err
	}
	if err := durable.Rename(image, f.clean()); err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(r revision) bool { return slices.Contains(s.Kept, r.name) })
	for len(list) > max(s.Revisions, 0) {
		if err := os.Remove(f.revision(list[0])); err != nil {
			return err
		}
		list = list[1:]
	}
	return durable.SyncDir(filepath.Dir(string(f)))
}

// dropRun deletes what a run of a snapshot or volatile volume made.
func (f files) dropRun() error {
	return errors.Join(remove(f.overlay()), remove(f.base()), remove(f.dirty()))
}

// all lists every file of the volume.
func (f files) all() ([]string, error) {
	list := []string{f.dirty(), f.overlay(), f.base(), f.clean(), f.marker()}
	revisions, err := f.revisions()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, r := range revisions {
		list = append(list, f.revision(r))
	}
	return slices.DeleteFunc(list, func(path string) bool { return !present(path) }), err
}

func (f files) removeAll() error {
	list, err := f.all()
	if err != nil || len(list) == 0 {
		return err
	}
	for _, path := range list {
		if err := remove(path); err != nil {
			return err
		}
	}
	dir := filepath.Dir(string(f))
	if err := durable.SyncDir(dir); err != nil {
		return err
	}
	os.Remove(dir) // stays while anything else is in it
	return nil
}

// usage is the room that the volume's files take. The base of a snapshot
// belongs to its source.
func (f files) usage() (int64, error) {
	list, err := f.all()
	var sum int64
	for _, path := range list {
		var st unix.Stat_t
		if path != f.base() && unix.Stat(path, &st) == nil {
			sum += st.Blocks * 512
		}
	}
	return sum, err
}

func present(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
