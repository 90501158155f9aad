package policy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Dirs are the folders of a policy (spec/policy.md §1).
type Dirs struct {
	// Policy holds the files *.policy: those of a later folder hide those of
	// the same name in an earlier one. At least one.
	Policy []string
	Legacy string // files of Qubes 4.0, for !compat-4.0
}

// Suffix is that of a policy's files.
const Suffix = ".policy"

// Load reads a policy, or tells in an Errors everything that is wrong with it.
func Load(dirs Dirs) (*Policy, error) { return load(files{dirs: dirs}) }

// LoadSeeing is Load that tells of each file and folder that the policy
// depends on, also of those that could not be read; of some more than once.
// When none of them has changed, neither has what Load would return.
func LoadSeeing(dirs Dirs, see func(path string)) (*Policy, error) {
	return load(files{dirs: dirs, see: see})
}

// Check tells what would be wrong with the policy if a file had another text,
// or were not there: text nil. The file need not exist.
func Check(dirs Dirs, file string, text []byte) error {
	_, err := load(files{dirs: dirs, other: filepath.Clean(file), text: text})
	return err
}

// DirsIn finds the folders of a policy that somebody has put together in one
// folder: policy.d, run and legacy in it, as far as they are there, or the
// folder itself where its files are policies.
func DirsIn(dir string) (Dirs, error) {
	found, err := filepath.Glob(filepath.Join(dir, "*"+Suffix))
	if err != nil {
		return Dirs{}, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Dirs{}, err
	}
	d := Dirs{Legacy: filepath.Join(dir, "legacy")}
	for _, name := range []string{"policy.d", "run"} {
		if len(found) == 0 && slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name && e.IsDir() }) {
			d.Policy = append(d.Policy, filepath.Join(dir, name))
		}
	}
	if d.Policy == nil {
		d.Policy = []string{dir}
	}
	return d, nil
}

// Lint tells what is wrong with a text as a file of that name, and with what
// it includes; nothing else of the policy is read. Relative names begin at the
// first folder of dirs. A file in the format of Qubes 4.0 (old) is taken for
// one that !include-service names.
func Lint(dirs Dirs, file string, text []byte, old bool) error {
	file = filepath.Clean(file)
	if text == nil {
		text = []byte{}
	}
	r := &reader{files: files{dirs: dirs, other: file, text: text}}
	s := source{name: file, base: dirs.Policy[0]}
	if old {
		s.old, s.service, s.argument = true, "*", "*"
	}
	var err error
	if base := filepath.Base(file); strings.HasSuffix(base, Suffix) {
		if bad := checkFileName(base); bad != nil {
			err = r.fail(file, 0, bad)
		}
	}
	if err == nil {
		err = r.file(s, file, 0)
	}
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if len(r.problems) > 0 {
		return r.problems
	}
	return nil
}

func load(f files) (*Policy, error) {
	r := &reader{files: f}
	if err := r.all(); err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	return compile(r.rules), nil
}

// all reads the files of all folders in the order of their names.
func (r *reader) all() error {
	place := map[string]string{} // folder of each name
	for _, dir := range r.files.dirs.Policy {
		names, err := r.files.list(dir)
		if err != nil {
			if err := r.fail(dir, 0, err); err != nil {
				return err
			}
		}
		for _, name := range names {
			place[name] = dir
		}
	}
	names := make([]string, 0, len(place))
	for name := range place {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		path := filepath.Join(place[name], name)
		err := checkFileName(name)
		if err != nil {
			err = r.fail(path, 0, err)
		} else {
			err = r.file(source{name: path, base: place[name]}, path, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkFileName tells what is wrong with the name of a policy's file.
func checkFileName(name string) error {
	for i := 0; i < len(name); i++ {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("_.-", rune(c)) {
			return fmt.Errorf("%q is not the name of a policy's file: that has small letters, digits, '_', '.' and '-'", cut(name))
		}
	}
	return nil
}

// files reads from the disk, with the text of one file replaced.
type files struct {
	dirs  Dirs
	other string            // file whose text is given; empty: none
	text  []byte            // nil: it does not exist
	see   func(path string) // told of what is looked at; may be nil
}

func (f files) saw(path string) {
	if f.see != nil {
		f.see(path)
	}
}

func (f files) read(name string) ([]byte, error) {
	f.saw(name)
	if f.other != "" && filepath.Clean(name) == f.other {
		if f.text == nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return f.text, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	text, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	if err == nil && len(text) > MaxFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, MaxFile)
	}
	return text, err
}

// list names the files *.policy of a folder, sorted.
func (f files) list(dir string) ([]string, error) {
	return f.names(dir, func(name string) bool { return strings.HasSuffix(name, Suffix) })
}

func (f files) names(dir string, wanted func(string) bool) ([]string, error) {
	f.saw(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Name()[0] == '.' || !wanted(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		f.saw(path)
		info, err := os.Stat(path) // a link counts as what it leads to
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() {
			names = append(names, e.Name())
		}
	}
	if f.other != "" && filepath.Dir(f.other) == filepath.Clean(dir) {
		name := filepath.Base(f.other)
		names = slices.DeleteFunc(names, func(n string) bool { return n == name })
		if f.text != nil && name[0] != '.' && wanted(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// legacyFile is a file of Qubes 4.0: its name says what it is about.
type legacyFile struct{ name, service, argument string }

// listLegacy lists them: by service, then by argument, those for every
// argument last.
func (f files) listLegacy() ([]legacyFile, error) {
	saved := []string{".rpmsave", ".rpmnew", ".swp"}
	names, err := f.names(f.dirs.Legacy, func(name string) bool {
		return isWord(name, "+-._") && !slices.ContainsFunc(saved, func(s string) bool { return strings.HasSuffix(name, s) })
	})
	if err != nil {
		return nil, err
	}
	var list []legacyFile
	for _, name := range names {
		l := legacyFile{name: filepath.Join(f.dirs.Legacy, name), service: name}
		if i := strings.IndexByte(name, '+'); i >= 0 {
			l.service, l.argument = name[:i], name[i:]
		}
		if l.service != "" {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b legacyFile) int {
		switch {
		case a.service != b.service:
			return strings.Compare(a.service, b.service)
		case a.argument == "":
			return 1
		case b.argument == "":
			return -1
		}
		return strings.Compare(a.argument, b.argument)
	})
	return list, nil
}
