// Package session describes the graphical session of a qube's user: the
// files by which init tells the other agents where the X server and the bus
// are, the environment of the user's programs, and the X server's own set-up.
package session

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"cubicle/agents/actions"
)

// Where init leaves what the agents share (a tmpfs).
const (
	Dir       = "/run/qubes"
	EnvFile   = Dir + "/session.env"   // KEY=VALUE lines, see ReadEnv
	ReadyFile = Dir + "/session-ready" // exists while X and the bus answer
	XAuthFile = Dir + "/xauthority"    // the X server's cookie, readable by the user
	StateFile = Dir + "/gui-agent.status"
)

// Display is the qube's X display.
const Display = ":0"

// DefaultUser is the desktop user of a qube.
const DefaultUser = "user"

// Path is the search path of the user's programs.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/games:/usr/games"

// Locale is used where the image sets none.
const Locale = "C.UTF-8"

// User is an account of the qube.
type User struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary
	Home   string
	Shell  string
}

// LookupUser finds an account by name.
func LookupUser(name string) (User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return User{}, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("user %s: id %q: %w", name, u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("user %s: group id %q: %w", name, u.Gid, err)
	}
	out := User{Name: name, UID: uint32(uid), GID: uint32(gid), Home: u.HomeDir, Shell: shellOf(name)}
	groups, err := u.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("groups of %s: %w", name, err)
	}
	for _, g := range groups {
		if n, err := strconv.ParseUint(g, 10, 32); err == nil {
			out.Groups = append(out.Groups, uint32(n))
		}
	}
	return out, nil
}

// shellOf reads the login shell, which os/user does not tell.
func shellOf(name string) string {
	const fallback = "/bin/sh"
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return fallback
	}
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) == 7 && f[0] == name && f[6] != "" {
			return f[6]
		}
	}
	return fallback
}

// Credential is what a process of the user starts with.
func (u User) Credential() *syscall.Credential {
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// RuntimeDir is the user's XDG_RUNTIME_DIR.
func (u User) RuntimeDir() string { return fmt.Sprintf("/run/user/%d", u.UID) }

// BusAddress is the address of the user's session bus.
func (u User) BusAddress() string { return "unix:path=" + filepath.Join(u.RuntimeDir(), "bus") }

// Env is the environment of the user's programs, sorted.
func (u User) Env() []string {
	env := []string{
		"DBUS_SESSION_BUS_ADDRESS=" + u.BusAddress(),
		"DISPLAY=" + Display,
		"HOME=" + u.Home,
		"LANG=" + locale(),
		"LOGNAME=" + u.Name,
		"PATH=" + Path,
		"SHELL=" + u.Shell,
		"USER=" + u.Name,
		"XAUTHORITY=" + XAuthFile,
		"XDG_DATA_DIRS=/usr/local/share:/usr/share:" + actions.Dir,
		"XDG_RUNTIME_DIR=" + u.RuntimeDir(),
		"XDG_SESSION_TYPE=x11",
	}
	slices.Sort(env)
	return env
}

// locale returns the image's locale, or Locale.
func locale() string {
	for _, file := range []string{"/etc/locale.conf", "/etc/default/locale"} {
		env, err := ReadEnv(file)
		if err != nil {
			continue
		}
		for _, kv := range env {
			if v, ok := strings.CutPrefix(kv, "LANG="); ok && v != "" {
				return strings.Trim(v, `"'`)
			}
		}
	}
	return Locale
}

// ReadEnv reads KEY=VALUE lines; empty lines and lines that begin with # are
// left out.
func ReadEnv(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseEnv(b), nil
}

func parseEnv(b []byte) []string {
	var env []string
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		key, _, ok := strings.Cut(line, "=")
		if ok && key != "" && key[0] != '#' {
			env = append(env, line)
		}
	}
	return env
}

// WriteEnv writes env as ReadEnv reads it, so that a reader sees all of it or
// nothing. A value with a line break is an error.
func WriteEnv(path string, env []string) error {
	var b bytes.Buffer
	for _, kv := range env {
		if strings.ContainsAny(kv, "\n\x00") {
			return fmt.Errorf("%s: %q spans lines", path, kv)
		}
		b.WriteString(kv + "\n")
	}
	return replaceFile(path, b.Bytes(), 0o644)
}

// replaceFile puts b at path by rename.
func replaceFile(path string, b []byte, mode os.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, mode); err != nil {
		return err
	}
	if err := os.Chmod(tmp, mode); err != nil { // whatever the umask was
		return err
	}
	return os.Rename(tmp, path)
}
