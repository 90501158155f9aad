package pid1

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/agents/session"
)

// stageEnv marks the process of this test binary that becomes the qube.
const stageEnv = "CUBICLE_TEST_QUBE"

func TestMain(m *testing.M) {
	if root := os.Getenv(stageEnv); root != "" {
		err := enterQube(root)
		fmt.Fprintln(os.Stderr, "cannot become a qube:", err)
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// enterQube makes the folder root the tree of this process, which is the first
// of its namespaces, and becomes its init. The machine's programs are seen
// read-only; everything else is the qube's own.
func enterQube(root string) error {
	runtime.LockOSThread()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	for _, dir := range []string{"usr", "bin", "sbin", "lib", "lib64", "etc/X11", "etc/fonts", "etc/alternatives", "etc/dbus-1", "var/lib/xkb", "dev"} {
		if fi, err := os.Lstat("/" + dir); err != nil {
			continue
		} else if fi.Mode()&os.ModeSymlink != 0 {
			dest, err := os.Readlink("/" + dir)
			if err == nil {
				err = os.Symlink(dest, filepath.Join(root, dir))
			}
			if err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/"+dir, filepath.Join(root, dir), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind /%s: %w", dir, err)
		}
	}
	// The machine's own /usr/local may be huge.
	if err := unix.Mount("tmpfs", filepath.Join(root, "usr/local"), "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	// As the engine does: a new /dev/pts and /proc, the link's folder.
	if err := os.MkdirAll(filepath.Join(root, "run/cubicle"), 0o755); err != nil {
		return err
	}
	if err := unix.Mount(filepath.Join(root, "links"), filepath.Join(root, "run/cubicle"), "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
		return err
	}
	if err := unix.Mount("proc", filepath.Join(root, "proc"), "proc", 0, ""); err != nil {
		return fmt.Errorf("proc: %w", err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(root, "dev/shm"), "tmpfs", 0, "mode=1777"); err != nil {
		return err
	}
	if err := unix.Mount("devpts", filepath.Join(root, "dev/pts"), "devpts", 0, "newinstance,ptmxmode=0666"); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("work")); err != nil {
		return err
	}
	if err := unix.Chroot(root); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return syscall.Exec("/qubes-agent", []string{"/qubes-agent", "init"}, []string{"CUBICLE_DEBUG=1", "PATH=" + session.Path})
}

// qube is a running init.
type qube struct {
	t    *testing.T
	cmd  *exec.Cmd
	root string
	pid  int
	log  *logBuffer
}

// logBuffer is a qube's console.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startQube builds the agent and runs it as PID 1 in namespaces of its own.
func startQube(t *testing.T) (*qube, *dom0) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, name := range []string{"dbus-daemon", "xterm", "nsenter"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	if _, err := session.XServer(); err != nil {
		t.Skip("Xorg is not installed")
	}
	// Not t.TempDir: it is below a folder of mode 0700.
	root, err := os.MkdirTemp("", "qube")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Errorf("the qube left something: %v", err)
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(root, 0o755))
	build := exec.Command("go", "build", "-o", filepath.Join(root, "qubes-agent"), "cubicle/cmd/qubes-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, out)
	}
	for _, dir := range []string{"etc/skel", "home", "rw", "links", "run", "tmp", "var/tmp", "var/lib", "root"} {
		must(os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	must(os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"), 0o644))
	must(os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\ntty:x:5:\nuser:x:1000:\n"), 0o644))
	must(os.WriteFile(filepath.Join(root, "etc/skel/.profile"), []byte("# skeleton\n"), 0o644))
	dom0 := serveDom0(t, filepath.Join(root, "links"))

	q := &qube{t: t, root: root, log: new(logBuffer)}
	q.cmd = exec.Command("/proc/self/exe")
	q.cmd.Env = []string{stageEnv + "=" + root}
	q.cmd.Stdout, q.cmd.Stderr = q.log, q.log
	q.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	t.Cleanup(runtime.UnlockOSThread)
	must(q.cmd.Start())
	q.pid = q.cmd.Process.Pid
	t.Cleanup(func() {
		q.cmd.Process.Kill()
		q.cmd.Wait()
		if t.Failed() {
			t.Logf("console:\n%s", q.log)
		}
	})
	return q, dom0
}

// run runs a shell command in the qube and returns what it prints.
func (q *qube) run(script string) (string, error) {
	cmd := exec.Command("nsenter", "-t", fmt.Sprint(q.pid), "-m", "-p", "-u", "-i", "-n", "-r", "-w", "/bin/sh", "-c", script)
	cmd.Env = []string{"PATH=" + session.Path}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// await runs a shell command until it succeeds.
func (q *qube) await(script string) string {
	q.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		out, err := q.run(script)
		if err == nil {
			return out
		}
		if time.Now().After(deadline) {
			q.t.Fatalf("%s: %v\n%s", script, err, out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

const asUser = "setpriv --reuid 1000 --regid 1000 --clear-groups env $(cat /run/qubes/session.env) "

func TestBootToAWindowAndDown(t *testing.T) {
	q, dom0 := startQube(t)
	q.await("test -e /run/qubes/session-ready")

	// The private volume is laid out and shown.
	got := q.await("stat -c '%U:%u:%a' /home/user && cat /rw/home/user/.profile && cat /etc/hostname && grep -c work /etc/hosts && wc -c < /etc/machine-id")
	if want := "user:1000:700\n# skeleton\nwork\n1\n33\n"; got != want {
		t.Errorf("the qube looks like %q, want %q", got, want)
	}
	// The user's programs reach X and the bus.
	q.await(asUser + "dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames")
	q.await(asUser + "sh -c 'xterm -T inside > /dev/null 2>&1 & '")
	if n := dom0.awaitWindow("inside"); n < 2 {
		t.Errorf("the window has %d colours", n)
	}
	if got := q.await("DISPLAY=:0 XAUTHORITY=/run/qubes/xauthority xdpyinfo | grep dimensions"); !strings.Contains(got, "2560x1440") {
		t.Errorf("the screen is %s", got)
	}

	// An orphan is collected.
	q.await("sh -c 'sleep 0.05 & sleep 0.01' & wait; sleep 0.2")
	if got, _ := q.run("grep -l 'State:.Z' /proc/[0-9]*/status"); got != "" {
		t.Errorf("zombies: %s", got)
	}

	began := time.Now()
	if err := q.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := q.cmd.Wait(); err != nil {
		t.Errorf("init ended with %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
	if !strings.Contains(q.log.String(), "msg=stopped") || strings.Contains(q.log.String(), "killing what did not end") {
		t.Error("not an orderly end")
	}
}

func TestServicesComeBack(t *testing.T) {
	q, dom0 := startQube(t)
	q.await("test -e /run/qubes/session-ready")
	pid := strings.TrimSpace(q.await("pgrep -fx '/qubes-agent gui'"))
	q.await("kill -9 " + pid)
	q.await("p=$(pgrep -fx '/qubes-agent gui') && test \"$p\" != " + pid)

	q.await("pkill -9 Xorg")
	q.await("! test -e /run/qubes/session-ready")
	q.await("test -e /run/qubes/session-ready")
	q.await(asUser + "sh -c 'xterm -T again > /dev/null 2>&1 & '")
	if n := dom0.awaitWindow("again"); n < 2 {
		t.Errorf("the window has %d colours", n)
	}
}

func TestOnlyPID1MayBeInit(t *testing.T) {
	if err := Run(slog.Default()); err != ErrNotInit {
		t.Errorf("init as an ordinary process: %v", err)
	}
}
