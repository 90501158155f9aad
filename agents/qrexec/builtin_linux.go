package qrexec

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/agents/open"
	"cubicle/agents/qrexec/desktop"
	"cubicle/daemon/qrexec/filecopy"
	"cubicle/daemon/qrexec/service"
	"cubicle/daemon/qrexec/wire"
)

// builtin is a service of the agent itself (spec/services.md §3–§5, §8).
type builtin struct {
	user string // replaces the command's user when set
	wait func(*wire.RPC) bool
	plan func(*agent, *plan, *wire.RPC) error
}

var builtins = map[string]builtin{
	"qubes.StartApp":       {wait: always, plan: planStartApp},
	"qubes.VMShell":        {wait: whenAsked, plan: planShell},
	"qubes.VMRootShell":    {user: "root", wait: whenAsked, plan: planShell},
	"qubes.VMExec":         {wait: never, plan: planExec},
	"qubes.VMExecGUI":      {wait: always, plan: planExec},
	"qubes.VMRootExec":     {user: "root", wait: never, plan: planExec},
	"qubes.WaitForSession": {wait: whenPlain, plan: planWait},
	"qubes.GetAppmenus":    {wait: never, plan: planAppmenus},
	"qubes.SetDateTime":    {user: "root", wait: never, plan: planSetTime},

	filecopy.Service:     {wait: never, plan: planOwn("unpack")},
	open.Service:         {wait: always, plan: planOwn("open-file")},
	open.URLService:      {wait: always, plan: planOwn("open-url")},
	"qubes.ConnectTCP":   {wait: never, plan: planTCP("/127.0.0.1")},
	"qubes.UpdatesProxy": {wait: never, plan: planTCP("/127.0.0.1/8082")},
}

func always(*wire.RPC) bool      { return true }
func never(*wire.RPC) bool       { return false }
func whenPlain(r *wire.RPC) bool { return r.Argument == "" }
func whenAsked(r *wire.RPC) bool { return r.Argument == "WaitForSession" }

func planShell(_ *agent, p *plan, r *wire.RPC) error {
	if r.Argument != "" && !whenAsked(r) {
		return service.Fail(wire.StatusFault, "%s with an argument", r.Service)
	}
	p.Argv = []string{"/bin/bash"}
	if !executable(p.Argv[0]) {
		p.Argv = []string{"/bin/sh"}
	}
	return nil
}

func planExec(_ *agent, p *plan, r *wire.RPC) error {
	argv, err := wire.DecodeArgs(r.Argument)
	if err != nil {
		return service.Fail(1, "%s: %w", r.Service, err)
	}
	path, ok := findProgram(p, argv[0])
	if !ok {
		return service.Fail(wire.StatusNoService, "%s: there is no program %q", r.Service, argv[0])
	}
	p.Argv = argv
	p.Argv[0] = path
	return nil
}

// planWait is what is left of qubes.WaitForSession when the session is there.
func planWait(_ *agent, p *plan, r *wire.RPC) error {
	if r.Argument != "" {
		return service.Fail(1, "%s takes no argument", r.Service)
	}
	p.Run = func(context.Context, service.Streams) int { return 0 }
	return nil
}

// planOwn runs what another qube sends through a process of our own program,
// as the call's user: bytes of strangers are not for the agent itself.
func planOwn(command string) func(*agent, *plan, *wire.RPC) error {
	return func(a *agent, p *plan, _ *wire.RPC) error {
		p.Argv = []string{a.Program, command}
		return nil
	}
}

// planTCP connects to a port of the qube itself. The other side is no service
// of ours: it is told nothing but the caller's own bytes.
func planTCP(link string) func(*agent, *plan, *wire.RPC) error {
	return func(_ *agent, p *plan, r *wire.RPC) error {
		addr, err := service.TCPAddress(link, r)
		if err != nil {
			return service.Fail(wire.StatusFault, "%s: %w", r.Service, err)
		}
		p.Addr = addr
		p.Config.SkipDescriptor = true
		return nil
	}
}

// terminals are tried in order; each takes a program after -e.
var terminals = []string{"x-terminal-emulator", "xterm", "xfce4-terminal", "konsole", "lxterminal", "urxvt", "st"}

func planStartApp(a *agent, p *plan, r *wire.RPC) error {
	id := r.Argument
	if id == "" {
		return service.Fail(1, "qubes.StartApp without the name of a program")
	}
	terminal, hasTerminal := firstProgram(p, terminals)
	if id == "qubes-run-terminal" {
		if !hasTerminal {
			return service.Fail(1, "there is no terminal")
		}
		p.Argv = []string{terminal}
		return nil
	}
	entry, err := desktop.Find(a.dataDirs(p), id)
	if err != nil {
		return service.Fail(1, "%w", err)
	}
	if entry == nil {
		path, ok := findProgram(p, id)
		if !ok || strings.ContainsRune(id, '/') {
			return service.Fail(1, "there is no desktop entry and no program %q", id)
		}
		p.Argv = []string{path}
		return nil
	}
	if entry.TryExec != "" {
		if _, ok := findProgram(p, entry.TryExec); !ok {
			return service.Fail(1, "%s: the program %q that it needs is not there", entry.Path, entry.TryExec)
		}
	}
	argv, err := entry.Argv()
	if err != nil {
		return service.Fail(1, "%w", err)
	}
	path, ok := findProgram(p, argv[0])
	if !ok {
		return service.Fail(1, "%s: there is no program %q", entry.Path, argv[0])
	}
	argv[0] = path
	if entry.Terminal {
		if !hasTerminal {
			return service.Fail(1, "%s needs a terminal, and there is none", entry.Path)
		}
		argv = append([]string{terminal, "-e"}, argv...)
	}
	p.Argv = argv
	if fi, err := os.Stat(entry.Dir); entry.Dir != "" && err == nil && fi.IsDir() {
		p.Dir = entry.Dir
	}
	return nil
}

// dataDirs are the XDG data folders of p's user, most important first.
func (a *agent) dataDirs(p *plan) []string {
	if a.DataDirs != nil {
		return a.DataDirs
	}
	home := getenv(p.Env, "XDG_DATA_HOME")
	if home == "" {
		home = filepath.Join(p.user.Home, ".local/share")
	}
	dirs := getenv(p.Env, "XDG_DATA_DIRS")
	if dirs == "" {
		dirs = "/usr/local/share:/usr/share"
	}
	return append([]string{home}, splitList(dirs)...)
}

// planAppmenus lists the menu entries of all data folders
// (spec/services.md §5). Upstream's agent leaves out what an app qube has of
// its template; dom0 here knows of the template only once that has run, and
// asks the qube that does.
func planAppmenus(a *agent, p *plan, _ *wire.RPC) error {
	dirs := a.dataDirs(p)
	p.Run = func(ctx context.Context, s service.Streams) int {
		out := bufio.NewWriter(s.Stdout)
		err := desktop.List(dirs, func(id string, lines []string) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			for _, line := range lines {
				if _, err := fmt.Fprintf(out, "%s.desktop:%s\n", id, line); err != nil {
					return err
				}
			}
			_, err := out.WriteString("\n")
			return err
		})
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			fmt.Fprintln(s.Stderr, err)
			return 1
		}
		return 0
	}
	return nil
}

// findProgram finds name like a shell with the plan's environment would.
func findProgram(p *plan, name string) (string, bool) {
	if name == "" {
		return "", false
	}
	if strings.ContainsRune(name, '/') {
		if !filepath.IsAbs(name) {
			name = filepath.Join(p.Dir, name)
		}
		return name, executable(name)
	}
	for _, dir := range splitList(getenv(p.Env, "PATH")) {
		if path := filepath.Join(dir, name); executable(path) {
			return path, true
		}
	}
	return "", false
}

func firstProgram(p *plan, names []string) (string, bool) {
	for _, name := range names {
		if path, ok := findProgram(p, name); ok {
			return path, true
		}
	}
	return "", false
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) == nil
}

// sessionPoll is how often the file that tells of the session is looked for;
// one stat costs microseconds.
const sessionPoll = 5 * time.Millisecond

// waitForSession waits until X and the session bus answer. Like upstream's it
// has no time limit of its own, but it ends when gone says that the caller is.
func (a *agent) waitForSession(ctx context.Context, gone func() bool) error {
	for {
		if _, err := os.Stat(a.ReadyFile); err == nil {
			return nil
		}
		if gone() {
			return service.ErrCallerGone
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(sessionPoll):
		}
	}
}

// splitList splits a PATH-like list, leaving out what is empty.
func splitList(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ':' })
}
