package open

import (
	"bufio"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The types of what nothing more is known of.
const (
	typeText  = "text/plain"
	typeBytes = "application/octet-stream"
)

// types is the shared database of MIME types (freedesktop.org Shared MIME-info
// Database 0.21), as far as it takes to find a file's type by its name.
type types struct {
	dirs []string // XDG data folders, most important first
}

// lines calls f for each line of the file name in every folder's mime/.
func (t types) lines(name string, f func(line string)) {
	for _, dir := range t.dirs {
		file, err := os.Open(filepath.Join(dir, "mime", name))
		if err != nil {
			continue // no folder needs to have one
		}
		s := bufio.NewScanner(file)
		for s.Scan() {
			if line := s.Text(); line != "" && line[0] != '#' {
				f(line)
			}
		}
		file.Close()
	}
}

// of is the type of the file at path.
func (t types) of(path string) string {
	if byName := t.byName(filepath.Base(path)); byName != "" {
		return byName
	}
	f, err := os.Open(path)
	if err != nil {
		return typeBytes
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, err := io.ReadFull(f, b)
	if n == 0 && err != nil || isText(b[:n]) {
		return typeText
	}
	return typeBytes
}

// isText tells whether b, which may be cut, is text.
func isText(b []byte) bool {
	for len(b) > 0 {
		c, n := utf8.DecodeRune(b)
		if c == utf8.RuneError && n == 1 && (len(b) >= utf8.UTFMax || utf8.FullRune(b)) || c == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// byName is the type that the heaviest, then longest pattern gives.
func (t types) byName(name string) string {
	lower := strings.ToLower(name)
	best, bestWeight, bestLength := "", -1, 0
	t.lines("globs2", func(line string) {
		f := strings.Split(line, ":")
		if len(f) < 3 || f[2] == "__NOGLOBS__" {
			return
		}
		weight, err := strconv.Atoi(f[0])
		if err != nil || weight < bestWeight || weight == bestWeight && len(f[2]) <= bestLength {
			return
		}
		subject, pattern := lower, strings.ToLower(f[2])
		if len(f) > 3 && strings.Contains(f[3], "cs") { // case-sensitive
			subject, pattern = name, f[2]
		}
		if ok, err := path.Match(pattern, subject); err == nil && ok {
			best, bestWeight, bestLength = f[1], weight, len(f[2])
		}
	})
	return best
}

// chain is the type and those it is a kind of, nearest first.
func (t types) chain(mime string) []string {
	parents := make(map[string][]string)
	t.lines("subclasses", func(line string) {
		if child, parent, ok := strings.Cut(line, " "); ok {
			parents[child] = append(parents[child], parent)
		}
	})
	t.lines("aliases", func(line string) {
		if alias, name, ok := strings.Cut(line, " "); ok {
			parents[alias] = append(parents[alias], name)
			parents[name] = append(parents[name], alias) // applications may know it by the old name
		}
	})
	seen := map[string]bool{mime: true}
	all := []string{mime}
	for i := 0; i < len(all); i++ {
		for _, parent := range parents[all[i]] {
			if !seen[parent] {
				seen[parent] = true
				all = append(all, parent)
			}
		}
	}
	if strings.HasPrefix(mime, "text/") && !seen[typeText] {
		all = append(all, typeText)
	}
	return all
}
