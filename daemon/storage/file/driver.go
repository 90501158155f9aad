package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"cubicle/daemon/storage"
)

// Folders opens pools and sees to it that no two of them share files.
type Folders struct {
	mu   sync.Mutex
	pool map[string]string // folder, without links, by pool
}

// dirPath is the option that names a pool's folder (spec/platform.md §1.3).
const dirPath = "dir_path"

// Driver is the driver of pools in folders.
func (f *Folders) Driver() storage.Driver {
	return storage.Driver{
		Name:    Driver,
		Options: []storage.Option{{Name: dirPath, Required: true}},
		Open: func(name string, options map[string]string, fresh bool) (storage.Pool, error) {
			p, err := f.Open(name, options[dirPath], fresh)
			if err != nil {
				return nil, err // a nil *Pool in an interface would not be nil
			}
			return p, nil
		},
		Forget: f.Forget,
	}
}

// Open returns the pool called name in the folder dir. A fresh pool wants a
// folder that is empty or yet to be made: Recover deletes by name what looks
// half-made. One that was there before must be there again.
func (f *Folders) Open(name, dir string, fresh bool) (*Pool, error) {
	p, err := f.open(name, dir, fresh)
	if err != nil {
		return nil, fmt.Errorf("pool %s in %q: %w", name, dir, err)
	}
	return p, nil
}

func (f *Folders) open(name, dir string, fresh bool) (*Pool, error) {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
		return nil, errors.New("the absolute path of a folder is needed")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	real, err := resolve(dir)
	if err != nil {
		return nil, err
	}
	for other, taken := range f.pool {
		if other != name && (within(real, taken) || within(taken, real)) {
			return nil, fmt.Errorf("the pool %s has %s", other, taken)
		}
	}
	entries, err := os.ReadDir(real)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ours := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == importDir })
	switch {
	case fresh && len(entries) > 1, fresh && len(entries) == 1 && !ours:
		return nil, errors.New("the folder is not empty")
	case !fresh && !ours:
		return nil, errors.New("there is no pool: is its disk mounted?")
	}
	p, err := New(name, real)
	if err != nil {
		return nil, err
	}
	f.put(name, real)
	return p, nil
}

// Add makes a pool that New has opened one of those that share no files.
func (f *Folders) Add(p *Pool) error {
	real, err := filepath.EvalSymlinks(p.dir)
	if err != nil {
		return fmt.Errorf("pool %s: %w", p.name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(p.name, real)
	return nil
}

func (f *Folders) put(name, dir string) {
	if f.pool == nil {
		f.pool = map[string]string{}
	}
	f.pool[name] = dir
}

// Forget lets the folder of a pool be another's.
func (f *Folders) Forget(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pool, name)
}

// resolve follows the links on the way to dir, the end of which may not exist.
func resolve(dir string) (string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if parent == dir {
		return "", err
	}
	real, err = resolve(parent)
	return filepath.Join(real, filepath.Base(dir)), err
}

// within reports whether a is the folder b or below it.
func within(a, b string) bool { return a == b || strings.HasPrefix(a, b+"/") }
