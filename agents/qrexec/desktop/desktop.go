// Package desktop reads freedesktop.org desktop entries: it finds one by its
// id, makes the command line that its Exec key stands for, and lists a qube's
// menu (Desktop Entry Specification 1.5; spec/services.md §3, §5).
package desktop

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Entry is an application's desktop entry.
type Entry struct {
	ID         string // sub-folders joined by '-', without ".desktop"; set by Find and Each
	Path       string // the file
	Name       string
	Icon       string
	Exec       string
	TryExec    string
	Dir        string // working directory, key Path
	Terminal   bool
	NoDisplay  bool
	Hidden     bool // deleted by the user
	Categories []string
	MimeTypes  []string // that it opens

	lines []string // KEY=VALUE as in the file
}

const (
	suffix   = ".desktop"
	maxFile  = 1 << 20 // bytes of an entry
	maxDepth = 8       // sub-folders of applications/
)

// Find returns the entry with that id (sub-folders joined by '-', without
// ".desktop") in the first data folder that has it, or nil when none has or
// the first is marked as deleted.
func Find(dataDirs []string, id string) (*Entry, error) {
	id = strings.TrimSuffix(id, suffix)
	if id == "" || strings.ContainsAny(id, "/\x00") {
		return nil, fmt.Errorf("%q is not the id of a desktop entry", id)
	}
	for _, dir := range dataDirs {
		path, err := findIn(filepath.Join(dir, "applications"), id, 0)
		if err != nil {
			return nil, err
		}
		if path == "" {
			continue
		}
		e, err := Read(path)
		if err != nil {
			return nil, err
		}
		if e.Hidden {
			return nil, nil
		}
		e.ID = id
		return e, nil
	}
	return nil, nil
}

// findIn looks for id in dir: as a file, or its first part as a sub-folder.
func findIn(dir, id string, depth int) (string, error) {
	path := filepath.Join(dir, id+suffix)
	switch fi, err := os.Stat(path); {
	case err == nil && fi.Mode().IsRegular():
		return path, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission):
		return "", err
	}
	if depth == maxDepth {
		return "", nil
	}
	for i := range len(id) {
		if id[i] != '-' || i == 0 {
			continue
		}
		sub := id[:i]
		if sub == "." || sub == ".." {
			continue
		}
		if fi, err := os.Stat(filepath.Join(dir, sub)); err != nil || !fi.IsDir() {
			continue
		}
		path, err := findIn(filepath.Join(dir, sub), id[i+1:], depth+1)
		if err != nil || path != "" {
			return path, err
		}
	}
	return "", nil
}

// Read reads the entry in the file at path.
func Read(path string) (*Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	e, err := Parse(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	e.Path = path
	return e, nil
}

// Parse reads the group [Desktop Entry]; other groups end it.
func Parse(r io.Reader) (*Entry, error) {
	e := new(Entry)
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxFile)
	inside := false
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' {
			if inside {
				break
			}
			inside = line == "[Desktop Entry]"
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !inside || !ok {
			continue
		}
		key, value = strings.TrimRight(key, " \t"), strings.TrimLeft(value, " \t")
		e.lines = append(e.lines, key+"="+value)
		e.set(key, value)
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if e.lines == nil {
		return nil, errors.New("there is no group [Desktop Entry]")
	}
	return e, nil
}

func (e *Entry) set(key, value string) {
	switch key {
	case "Name":
		e.Name = unescape(value)
	case "Icon":
		e.Icon = unescape(value)
	case "Exec":
		e.Exec = unescape(value)
	case "TryExec":
		e.TryExec = unescape(value)
	case "Path":
		e.Dir = unescape(value)
	case "Terminal":
		e.Terminal = value == "true"
	case "NoDisplay":
		e.NoDisplay = value == "true"
	case "Hidden":
		e.Hidden = value == "true"
	case "Categories":
		e.Categories = splitValues(value)
	case "MimeType":
		e.MimeTypes = splitValues(value)
	}
}

func splitValues(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ';' })
}

// unescape resolves the escapes of the value type string.
func unescape(s string) string {
	if !strings.ContainsRune(s, '\\') {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 's':
			b.WriteByte(' ')
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case '\\':
			b.WriteByte('\\')
		default: // kept for the quoting rules of Exec
			b.WriteByte('\\')
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// Argv is the command line of the Exec key without files or URLs.
func (e *Entry) Argv() ([]string, error) { return e.argv("") }

// ArgvWith is the command line of the Exec key that opens target, a file or a
// URL. An Exec key without a place for it gets it at its end.
func (e *Entry) ArgvWith(target string) ([]string, error) {
	argv, err := e.argv(target)
	if err == nil && !slices.ContainsFunc(argv[1:], func(arg string) bool { return strings.Contains(arg, target) }) {
		argv = append(argv, target)
	}
	return argv, err
}

// argv puts target, if it is not empty, where the Exec key has a place for it.
func (e *Entry) argv(target string) ([]string, error) {
	words, err := splitExec(e.Exec)
	if err != nil {
		return nil, fmt.Errorf("%s: Exec %q: %w", e.Path, e.Exec, err)
	}
	var argv []string
	for _, w := range words {
		switch {
		case w.text == "%i" && !w.quoted:
			if e.Icon != "" {
				argv = append(argv, "--icon", e.Icon)
			}
			continue
		case len(w.text) == 2 && w.text[0] == '%' && strings.IndexByte(fieldCodes, w.text[1]) >= 0 && !w.quoted:
			if target != "" && strings.IndexByte(targetCodes, w.text[1]) >= 0 {
				argv = append(argv, target)
			}
			continue
		}
		text, err := e.expand(w.text, target)
		if err != nil {
			return nil, fmt.Errorf("%s: Exec %q: %w", e.Path, e.Exec, err)
		}
		argv = append(argv, text)
	}
	if len(argv) == 0 || argv[0] == "" {
		return nil, fmt.Errorf("%s: no command in Exec %q", e.Path, e.Exec)
	}
	return argv, nil
}

// The field codes that stand for what is opened, and all of them that may
// stand for nothing.
const (
	targetCodes = "fFuU"
	fieldCodes  = targetCodes + "dDnNvm"
)

// expand replaces the field codes inside a word.
func (e *Entry) expand(s, target string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			return "", errors.New("'%' at the end")
		}
		switch s[i] {
		case '%':
			b.WriteByte('%')
		case 'c':
			b.WriteString(e.Name)
		case 'k':
			b.WriteString(e.Path)
		case 'f', 'F', 'u', 'U':
			b.WriteString(target)
		case 'd', 'D', 'n', 'N', 'v', 'm', 'i':
		default:
			return "", fmt.Errorf("unknown field code %%%c", s[i])
		}
	}
	return b.String(), nil
}

type word struct {
	text   string
	quoted bool
}

// splitExec splits at blanks; double quotes keep blanks, and in them a
// backslash escapes the quote, the backtick, the dollar and itself.
func splitExec(s string) ([]word, error) {
	var words []word
	var b strings.Builder
	inWord, quoted, inQuotes := false, false, false
	flush := func() {
		if inWord {
			words = append(words, word{b.String(), quoted})
		}
		b.Reset()
		inWord, quoted = false, false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case inQuotes && c == '\\' && i+1 < len(s) && strings.IndexByte("\"`$\\", s[i+1]) >= 0:
			i++
			b.WriteByte(s[i])
		case c == '"':
			inQuotes = !inQuotes
			inWord, quoted = true, true
		case !inQuotes && (c == ' ' || c == '\t' || c == '\n'):
			flush()
		case !inQuotes && c == '\\' && i+1 < len(s): // lenient, as others are
			i++
			b.WriteByte(s[i])
			inWord = true
		default:
			b.WriteByte(c)
			inWord = true
		}
	}
	if inQuotes {
		return nil, errors.New("a quote that does not end")
	}
	flush()
	return words, nil
}

// List calls found for every entry that belongs in a menu, by id, with its
// KEY=VALUE lines; Exec is replaced by the command that starts the entry.
func List(dataDirs []string, found func(id string, lines []string) error) error {
	return Each(dataDirs, func(e *Entry) error {
		if !e.inMenu() {
			return nil
		}
		lines := slices.Clone(e.lines)
		for i, line := range lines {
			if strings.HasPrefix(line, "Exec=") {
				lines[i] = "Exec=qubes-desktop-run " + e.ID + suffix
			}
		}
		return found(e.ID, lines)
	})
}

// Each calls found for every entry, in the order of the data folders and of
// their ids. The first data folder that has an id wins. Entries that cannot be
// read are left out.
func Each(dataDirs []string, found func(e *Entry) error) error {
	seen := make(map[string]bool)
	for _, dir := range dataDirs {
		ids, paths, err := idsIn(filepath.Join(dir, "applications"), seen)
		if err != nil {
			return err
		}
		for _, id := range ids {
			e, err := Read(paths[id])
			if err != nil {
				continue
			}
			e.ID = id
			if err := found(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// idsIn lists the entries below base that are not in seen, and puts them there.
func idsIn(base string, seen map[string]bool) (ids []string, paths map[string]string, err error) {
	paths = make(map[string]string)
	err = filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil // a folder that is not there or not ours to read has no entries
		}
		rel, err := filepath.Rel(base, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if strings.Count(rel, "/") >= maxDepth {
				return fs.SkipDir
			}
			return nil
		}
		if id, ok := strings.CutSuffix(strings.ReplaceAll(rel, "/", "-"), suffix); ok && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
			paths[id] = path
		}
		return nil
	})
	slices.Sort(ids)
	return ids, paths, err
}

func (e *Entry) inMenu() bool {
	screensaver := len(e.Categories) == 1 && e.Categories[0] == "Screensaver"
	return !e.NoDisplay && !e.Hidden && !screensaver
}
