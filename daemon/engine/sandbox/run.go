package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
)

// supervisor is the script that runs a runtime: it keeps the exit status, and
// lets a qube write so much to its console log and no more. It begins when it
// reads a line: without one, whoever launched it died before it had written
// down that there is a machine. What bounds the log is a limit of file sizes
// (in blocks of 512 bytes), since cat passes on at once what it reads. Its
// arguments are the log, the status file, and the runtime's command.
const supervisor = `log=$1 status=$2
shift 2
read -r go || exit 125
exec </dev/null
{ "$@" 2>&1 </dev/null; echo $? >"$status~"; mv "$status~" "$status"; } |
{ (ulimit -c 0; ulimit -f 8192; exec cat); exec cat >/dev/null; } >>"$log" 2>/dev/null`

const (
	startLimit = 60 * time.Second // a machine under heavy load
	killLimit  = 10 * time.Second
)

// Start runs a prepared machine.
func (e *Engine) Start(ctx context.Context, uuid string) error {
	return fail("start", uuid, e.start(ctx, uuid))
}

func (e *Engine) start(ctx context.Context, uuid string) error {
	m, err := e.machine(uuid)
	if err != nil {
		return err
	}
	e.mu.Lock()
	idle := m.tree != nil && m.tree.ns != nil && m.state == engine.Absent
	e.mu.Unlock()
	if !idle {
		return engine.ErrRunning
	}
	dir := e.dir(uuid)
	for _, name := range []string{filePID, fileStatus, fileLog} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, fileRuntime), 0o711); err != nil {
		return err
	}
	watch, err := watchMemory(m.group)
	if errors.Is(err, fs.ErrNotExist) {
		return unusable("the machine's control group has vanished: start it again, and see what removes groups below /%s: %w", cgroupParent, err)
	}
	if err != nil {
		return err
	}
	cmd, gate, err := e.launch(m)
	if err != nil {
		watch.close()
		return err
	}
	super, err := openProcess(cmd.Process.Pid)
	if err != nil {
		gate.Close()
		watch.close()
		return errors.Join(err, cmd.Wait())
	}
	go cmd.Wait() // its status is in the file; this only lets the kernel forget it
	// Whatever becomes of us: either the supervisor is on record, or it ends.
	err = e.writeRecord(m, super, nil)
	if err == nil {
		_, err = gate.WriteString("go\n")
	}
	gate.Close()
	var first *process
	if err == nil {
		first, err = e.awaitStart(ctx, m, super)
	}
	if err != nil {
		e.abort(m, super)
		super.close()
		if watch.killed() {
			err = fmt.Errorf("%w: %d MiB are not enough to start it: %w", engine.ErrNoMemory, m.limit>>20, err)
		}
		watch.close()
		return err
	}
	e.mu.Lock()
	m.watch, m.super, m.init = watch, super, first
	m.killed, m.stopping = false, false
	e.mu.Unlock()
	if err := e.writeRecord(m, super, first); err != nil {
		e.abort(m, super)
		return err
	}
	return e.follow(m)
}

// launch starts the supervisor in the machine's mount namespace, in a session
// of its own: it lives on without us. It waits for a line from gate.
func (e *Engine) launch(m *machine) (cmd *exec.Cmd, gate *os.File, err error) {
	log, err := e.consoleLog(m.name)
	if err != nil {
		return nil, nil, err
	}
	wait, gate, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer wait.Close()
	dir := e.dir(m.uuid)
	args := append([]string{"-c", supervisor, "cubicle-" + m.name, log, filepath.Join(dir, fileStatus)}, e.runtime(m, "run")...)
	cmd = exec.Command("/bin/sh", append(args, "--bundle", dir, "--pid-file", filepath.Join(dir, filePID), m.uuid)...)
	cmd.Dir, cmd.Stdin = "/", wait
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = inThread(func() error {
		if err := enter(m.tree.ns); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		gate.Close()
		return nil, nil, err
	}
	return cmd, gate, nil
}

// consoleLog returns the path of a fresh console log and keeps one old one.
func (e *Engine) consoleLog(name string) (string, error) {
	dir := e.options.Root.Log()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "console-"+name+".log")
	if err := os.Rename(path, path+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return "", err
	}
	return path, f.Close()
}

// runtime is the runtime's command line up to its sub-command.
func (e *Engine) runtime(m *machine, command string) []string {
	dir := e.dir(m.uuid)
	args := []string{e.options.Binary, "--root", filepath.Join(dir, fileRuntime), "--log", filepath.Join(dir, fileLog)}
	if e.options.Runtime == Crun {
		args = append(args, "--cgroup-manager", "cgroupfs")
		if m.group.none() {
			args[len(args)-1] = "disabled"
		}
		return append(args, command)
	}
	args = append(args, "--log-format", "text",
		"--network=none",                                            // only lo
		"--host-uds=all",                                            // the link's socket
		"--overlay2=none",                                           // the overlay is ours
		"--allow-suid",                                              // sudo
		"--directfs=true",                                           // files without a round trip to the gofer
		"--file-access=exclusive", "--file-access-mounts=exclusive", // see spec,
	)
	if m.group.none() {
		args = append(args, "--ignore-cgroups")
	}
	return append(args, command)
}

// awaitStart waits until the machine's first program runs.
func (e *Engine) awaitStart(ctx context.Context, m *machine, super *process) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		if pid, ok := e.startedPID(m); ok {
			return openProcess(pid)
		}
		if super.wait(2*time.Millisecond) == nil {
			return nil, e.whyNot(m)
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%s did not come up: %w", e.options.Runtime, err)
		}
	}
}

// startedPID is the process id of the sandbox once its program runs.
func (e *Engine) startedPID(m *machine) (int, bool) {
	dir := e.dir(m.uuid)
	data, err := os.ReadFile(filepath.Join(dir, filePID))
	if err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0, false
	}
	if e.options.Runtime == Crun {
		return pid, executed(pid, e.options.Binary)
	}
	return pid, runscRuns(filepath.Join(dir, fileRuntime))
}

// executed tells whether the process became the qube's program. Until then it
// is a copy of the runtime.
func executed(pid int, runtime string) bool {
	var init, ours unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/exe", pid), &init) != nil || unix.Stat(runtime, &ours) != nil {
		return false
	}
	if init.Ino == ours.Ino && init.Dev == ours.Dev {
		return false
	}
	// crun runs from a sealed copy of itself in memory.
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && !strings.HasPrefix(target, "/memfd:") && filepath.Base(target) != filepath.Base(runtime)
}

// runscRuns asks the state that runsc keeps.
func runscRuns(dir string) bool {
	found, err := filepath.Glob(filepath.Join(dir, "*.state"))
	if err != nil || len(found) != 1 {
		return false
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		return false
	}
	var state struct {
		Status any `json:"status"` // a word, or a number in older versions
	}
	return json.Unmarshal(data, &state) == nil && (state.Status == "running" || state.Status == 2.0)
}

// abort ends a start that did not succeed, and waits for it.
func (e *Engine) abort(m *machine, super *process) {
	if pid, err := os.ReadFile(filepath.Join(e.dir(m.uuid), filePID)); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(pid))); err == nil && n > 1 {
			if p, err := openProcess(n); err == nil {
				_ = p.signal(unix.SIGKILL)
				p.close()
			}
		}
	}
	if super.wait(time.Second) == nil {
		return
	}
	e.destroy(m, super)
}

// destroy ends whatever is left of a machine, the supervisor last.
func (e *Engine) destroy(m *machine, super *process) {
	killAll(m.group)
	if super == nil {
		return // it ends by itself
	}
	// All that the supervisor started is in its process group.
	_ = unix.Kill(-super.PID, unix.SIGKILL)
	if err := super.wait(killLimit); err != nil {
		e.log.Error("the supervisor of a machine does not end", "uuid", m.uuid, "error", err)
	}
}

// whyNot explains a start that failed, from what the runtime said.
func (e *Engine) whyNot(m *machine) error {
	dir := e.dir(m.uuid)
	status, _ := readStatus(filepath.Join(dir, fileStatus))
	said := lastLine(filepath.Join(dir, fileLog))
	if console := lastLine(filepath.Join(e.options.Root.Log(), "console-"+m.name+".log")); said == "" {
		said = console
	}
	switch {
	case status == 127 || status == 126:
		return unusable("%s cannot be run: %s (%s)", e.options.Binary, said, mend[e.options.Runtime])
	case strings.Contains(said, "runsc flags"):
		return unusable("%s is too old: %s (distributions' runsc before 2025 cannot run sudo in a qube)", e.options.Binary, mend[Runsc])
	case strings.Contains(said, "sync file: EOF"):
		return fmt.Errorf("%s: %s: a folder above its files is closed to other users: check that / and %s have mode 0755", e.options.Runtime, said, m.tree.hideout)
	}
	return fmt.Errorf("%s ended with status %d: %s", e.options.Runtime, status, said)
}

// mend says where the runtimes come from.
var mend = map[string]string{
	Crun:  "apt-get install crun",
	Runsc: "`make build` puts runsc beside our programs",
}

// lastLine is the last line of a log, as far as it is plain text.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 8192 {
		if _, err := f.Seek(-8192, 2); err != nil {
			return ""
		}
	}
	last := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if text := strings.TrimSpace(lines.Text()); text != "" {
			last = text
		}
	}
	return plain(last)
}

// plain keeps printable ASCII, and not too much of it.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	if len(s) > 400 {
		s = s[:400] + "..."
	}
	return s
}

// readStatus reads the runtime's exit status.
func readStatus(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return -1, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// tell runs a sub-command of the runtime for a machine.
func (e *Engine) tell(ctx context.Context, m *machine, command string, args ...string) error {
	line := append(e.runtime(m, command), args...)
	out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return unusable("%s cannot be run: %w (%s)", e.options.Binary, err, mend[e.options.Runtime])
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", e.options.Runtime, command, err, plain(strings.TrimSpace(string(out))))
	}
	return nil
}
