package open

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"cubicle/agents/qrexec/desktop"
)

// Desk is where the programs of a user's session are found.
type Desk struct {
	DataDirs   []string // XDG data folders, most important first
	ConfigDirs []string // XDG configuration folders, most important first
	Stderr     io.Writer
}

// FromEnv is the desk of our own environment.
func FromEnv(stderr io.Writer) Desk {
	home, _ := os.UserHomeDir() // without one, its folders are missing
	list := func(own, ownDefault, all, allDefault string) []string {
		dirs := []string{os.Getenv(own)}
		if dirs[0] == "" {
			dirs[0] = filepath.Join(home, ownDefault)
		}
		rest := os.Getenv(all)
		if rest == "" {
			rest = allDefault
		}
		return append(dirs, strings.FieldsFunc(rest, func(c rune) bool { return c == ':' })...)
	}
	return Desk{
		DataDirs:   list("XDG_DATA_HOME", ".local/share", "XDG_DATA_DIRS", "/usr/local/share:/usr/share"),
		ConfigDirs: list("XDG_CONFIG_HOME", ".config", "XDG_CONFIG_DIRS", "/etc/xdg"),
		Stderr:     stderr,
	}
}

// Open opens a file or a link with the program that the user has chosen for
// its type, else one that knows the type, and waits until it is done.
func (d Desk) Open(ctx context.Context, target string) error {
	argv, dir, err := d.command(target)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = d.Stderr, d.Stderr // our own output is an answer
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(argv[0]), err)
	}
	return d.untilUnused(ctx, target)
}

// command is what opens target: xdg-open where the image has it, which knows
// the user's desktop, else the handler that we find.
func (d Desk) command(target string) (argv []string, dir string, err error) {
	if path, err := exec.LookPath("xdg-open"); err == nil {
		return []string{path, target}, "", nil
	}
	e, err := d.Handler(target)
	if err != nil {
		return nil, "", err
	}
	argv, err = e.ArgvWith(target)
	if err != nil {
		return nil, "", err
	}
	if argv[0], err = exec.LookPath(argv[0]); err != nil {
		return nil, "", err
	}
	if e.Terminal {
		for _, terminal := range []string{"x-terminal-emulator", "xterm"} {
			if path, err := exec.LookPath(terminal); err == nil {
				return append([]string{path, "-e"}, argv...), e.Dir, nil
			}
		}
		return nil, "", fmt.Errorf("%s needs a terminal, and there is none", e.Path)
	}
	return argv, e.Dir, nil
}

// Handler finds the entry of the program for a file or a link.
func (d Desk) Handler(target string) (*desktop.Entry, error) {
	t := types{d.DataDirs}
	var kinds []string
	if scheme, _, ok := strings.Cut(target, "://"); ok && LooksLikeURL(target) {
		kinds = []string{"x-scheme-handler/" + strings.ToLower(scheme)}
	} else {
		kinds = t.chain(t.of(target))
	}
	chosen := d.associations()
	var entries []*desktop.Entry
	err := desktop.Each(d.DataDirs, func(e *desktop.Entry) error {
		if !e.Hidden {
			entries = append(entries, e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, kind := range kinds {
		for _, id := range chosen.defaults[kind] {
			i := slices.IndexFunc(entries, func(e *desktop.Entry) bool { return e.ID == id })
			if i >= 0 && usable(entries[i]) {
				return entries[i], nil
			}
		}
		for _, e := range entries {
			knows := slices.Contains(e.MimeTypes, kind) || slices.Contains(chosen.added[kind], e.ID)
			if knows && !slices.Contains(chosen.removed[kind], e.ID) && usable(e) {
				return e, nil
			}
		}
	}
	return nil, fmt.Errorf("no program here opens %s", kinds[0])
}

// usable tells whether an entry's programs are there.
func usable(e *desktop.Entry) bool {
	argv, err := e.Argv()
	if err != nil {
		return false
	}
	if e.TryExec != "" {
		if _, err := exec.LookPath(e.TryExec); err != nil {
			return false
		}
	}
	_, err = exec.LookPath(argv[0])
	return err == nil
}

// associations are which programs (ids) are for which types.
type associations struct{ defaults, added, removed map[string][]string }

const maxList = 1 << 20 // bytes of a mimeapps.list

// associations reads all mimeapps.list files, the most important first
// (freedesktop.org, Association between MIME types and applications 1.0.1).
func (d Desk) associations() associations {
	a := associations{map[string][]string{}, map[string][]string{}, map[string][]string{}}
	var files []string
	for _, dir := range d.ConfigDirs {
		files = append(files, filepath.Join(dir, "mimeapps.list"))
	}
	for _, dir := range d.DataDirs {
		files = append(files, filepath.Join(dir, "applications", "mimeapps.list"), filepath.Join(dir, "applications", "defaults.list"))
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			continue // none needs to be there
		}
		a.read(io.LimitReader(f, maxList))
		f.Close()
	}
	return a
}

func (a associations) read(r io.Reader) {
	var group map[string][]string
	s := bufio.NewScanner(r)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		switch line {
		case "[Default Applications]":
			group = a.defaults
		case "[Added Associations]":
			group = a.added
		case "[Removed Associations]":
			group = a.removed
		default:
			if strings.HasPrefix(line, "[") {
				group = nil
			}
			kind, ids, ok := strings.Cut(line, "=")
			if !ok || group == nil {
				continue
			}
			kind = strings.TrimSpace(kind)
			for _, id := range strings.Split(ids, ";") {
				if id = strings.TrimSuffix(strings.TrimSpace(id), ".desktop"); id != "" {
					group[kind] = append(group[kind], id)
				}
			}
		}
	}
}

// unusedPoll is how often the running programs are looked at.
const unusedPoll = 300 * time.Millisecond

// untilUnused waits until no program has target among its arguments: what was
// started may have handed it to another.
func (d Desk) untilUnused(ctx context.Context, target string) error {
	for {
		used, err := inUse(target)
		if err != nil || !used {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(unusedPoll):
		}
	}
}

// inUse tells whether a process but ourselves has target among its arguments.
func inUse(target string) (bool, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return false, err
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		for arg := range strings.SplitSeq(string(b), "\x00") {
			if strings.Contains(arg, target) {
				return true, nil
			}
		}
	}
	return false, nil
}
