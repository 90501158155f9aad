// Package enginetest is the conformance suite of engine.Engine: what every
// engine must do, tried with machines whose init is a small program that
// answers questions over the link socket.
package enginetest

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/engine"
	"cubicle/daemon/paths"
	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/vchan"
)

// Open returns the engine under test for a root; it may be called again for
// the same root, as a restarted daemon would.
type Open func(t testing.TB, root paths.Root) engine.Engine

// patience is how long anything may take on a loaded machine.
const patience = 30 * time.Second

// TestEngine runs the suite. It needs root and is skipped without.
func TestEngine(t *testing.T, open Open) {
	if os.Geteuid() != 0 {
		t.Skip("machines need root")
	}
	agent := buildInit(t)
	for name, test := range map[string]func(*testing.T, *world){
		"Lifecycle":           testLifecycle,
		"Kill":                testKill,
		"Crash":               testCrash,
		"Pause":               testPause,
		"KillPaused":          testKillPaused,
		"Stats":               testStats,
		"MemoryLimit":         testMemoryLimit,
		"GreedyProgram":       testGreedyProgram,
		"NoNetwork":           testNoNetwork,
		"Users":               testUsers,
		"Volumes":             testVolumes,
		"Link":                testLink,
		"SharedMemory":        testSharedMemory,
		"FoundAgain":          testFoundAgain,
		"EndedUnseen":         testEndedUnseen,
		"TwoMachines":         testTwoMachines,
		"WrongOrder":          testWrongOrder,
		"StartFails":          testStartFails,
		"ClosedParent":        testClosedParent,
		"PreparedAndReleased": testPreparedAndReleased,
		"Dangers":             testDangers,
		"AtOnce":              testAtOnce,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, open, agent)
			test(t, w)
			w.shut()
			w.traceless()
		})
	}
	t.Run("Probe", func(t *testing.T) {
		w := newWorld(t, open, agent)
		if err := w.engine.Probe(t.Context()); err != nil {
			t.Error(err)
		}
		w.traceless()
	})
}

// BenchmarkStart measures the way from Prepare to the call of the machine's
// init, and the way from Kill to the end of Release.
func BenchmarkStart(b *testing.B, open Open) {
	if os.Geteuid() != 0 {
		b.Skip("machines need root")
	}
	w := newWorld(b, open, buildInit(b))
	first := w.qube() // holds the template, as in a running system
	first.start()
	q := w.qube()
	q.machine.Root.Base = first.machine.Root.Base
	var up, prepared, down time.Duration
	for b.Loop() {
		began := time.Now()
		q.prepare()
		prepared += time.Since(began)
		if err := w.engine.Start(b.Context(), q.machine.UUID); err != nil {
			b.Fatal(err)
		}
		q.accept()
		up += time.Since(began)
		w.expect(engine.Up, "")
		q.conn.Close()
		began = time.Now()
		if err := w.engine.Kill(b.Context(), q.machine.UUID); err != nil {
			b.Fatal(err)
		}
		w.expect(engine.Absent, engine.Killed)
		q.release()
		down += time.Since(began)
	}
	n := float64(b.N) * float64(time.Millisecond)
	b.ReportMetric(float64(prepared)/n, "prepare-ms")
	b.ReportMetric(float64(up)/n, "hello-ms")
	b.ReportMetric(float64(down)/n, "gone-ms")
	b.ReportMetric(0, "ns/op")
}

// buildInit builds testinit into a folder as the agent.
func buildInit(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, engine.AgentBinary), "cubicle/daemon/engine/enginetest/testinit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build testinit: %v\n%s", err, out)
	}
	return dir
}

// world is a root with an engine and what dom0 has around it.
type world struct {
	t      testing.TB
	open   Open
	agent  string
	root   paths.Root
	engine engine.Engine
	next   vchan.Domain
	uuids  []string // of all machines
}

func newWorld(t testing.TB, open Open, agent string) *world {
	root, err := paths.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, open: open, agent: agent, root: root, next: 0x8000}
	w.engine = open(t, root)
	t.Cleanup(w.shut)
	return w
}

// reopen is a restart of the daemon.
func (w *world) reopen() {
	w.t.Helper()
	if err := w.engine.Close(); err != nil {
		w.t.Errorf("Close: %v", err)
	}
	w.engine = w.open(w.t, w.root)
}

func (w *world) shut() {
	if err := w.engine.Close(); err != nil {
		w.t.Errorf("Close: %v", err)
	}
}

// qubeOf is a machine and dom0's end of its link.
type qubeOf struct {
	*world
	machine engine.Machine
	listen  *net.UnixListener
	conn    *net.UnixConn
	lines   *bufio.Reader
}

// qube describes a machine with fresh volumes. At the end of the test it is
// killed and released.
func (w *world) qube() *qubeOf {
	t := w.t
	t.Helper()
	dir := t.TempDir()
	w.next++
	m := engine.Machine{
		UUID: newUUID(), Name: qube.Name(fmt.Sprintf("test%d", w.next-0x8000)), Domain: w.next, Memory: 256, VCPUs: 2,
		AgentDir: w.agent, LinkDir: w.root.Join("run/qubes/links", fmt.Sprint(w.next)),
	}
	w.uuids = append(w.uuids, m.UUID)
	m.Root.Base = storage.Layer{Path: image(t, dir, "root", 16), Format: storage.Raw, ReadOnly: true}
	m.Root.Overlay = &storage.Layer{Path: image(t, dir, "overlay", 16), Format: storage.Raw}
	m.Private.Base = storage.Layer{Path: image(t, dir, "private", 32), Format: storage.Raw}
	if err := os.MkdirAll(m.LinkDir, 0o755); err != nil {
		t.Fatal(err)
	}
	q := &qubeOf{world: w, machine: m}
	q.listenLink()
	t.Cleanup(func() {
		q.listen.Close()
		ctx := context.WithoutCancel(t.Context())
		_ = w.engine.Kill(ctx, m.UUID)    // most have ended
		_ = w.engine.Release(ctx, m.UUID) // most are released
	})
	return q
}

func (q *qubeOf) listenLink() {
	q.t.Helper()
	path := filepath.Join(q.machine.LinkDir, paths.LinkSocket)
	var err error
	// A test's folder may be longer than a socket's address.
	dir, err := os.Open(q.machine.LinkDir)
	if err != nil {
		q.t.Fatal(err)
	}
	defer dir.Close()
	_ = os.Remove(path)
	q.listen, err = net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), paths.LinkSocket)})
	if err != nil {
		q.t.Fatal(err)
	}
	q.listen.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o666); err != nil {
		q.t.Fatal(err)
	}
}

func (q *qubeOf) prepare() {
	q.t.Helper()
	if err := q.engine.Prepare(q.t.Context(), q.machine); err != nil {
		q.t.Fatal(err)
	}
}

// start runs the machine until its init answers.
func (q *qubeOf) start() {
	q.t.Helper()
	q.prepare()
	if err := q.engine.Start(q.t.Context(), q.machine.UUID); err != nil {
		q.t.Fatal(err)
	}
	q.expect(engine.Up, "")
	q.accept()
}

func (q *qubeOf) accept() {
	q.t.Helper()
	if err := q.listen.SetDeadline(time.Now().Add(patience)); err != nil {
		q.t.Fatal(err)
	}
	conn, err := q.listen.AcceptUnix()
	if err != nil {
		q.t.Fatalf("the machine's init does not call: %v", err)
	}
	q.t.Cleanup(func() { conn.Close() })
	q.conn, q.lines = conn, bufio.NewReader(conn)
	if hello := q.line(); hello != "ready 1" {
		q.t.Fatalf("the machine's init said %q", hello)
	}
}

func (q *qubeOf) line() string {
	q.t.Helper()
	if err := q.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		q.t.Fatal(err)
	}
	text, err := q.lines.ReadString('\n')
	if err != nil {
		q.t.Fatalf("the machine's init: %v", err)
	}
	return strings.TrimSpace(text)
}

func (q *qubeOf) say(format string, args ...any) {
	q.t.Helper()
	if _, err := fmt.Fprintf(q.conn, format+"\n", args...); err != nil {
		q.t.Fatal(err)
	}
}

func (q *qubeOf) ask(format string, args ...any) string {
	q.t.Helper()
	q.say(format, args...)
	return q.line()
}

// expect takes the next event.
func (w *world) expect(state engine.MachineState, reason engine.Reason) engine.Event {
	w.t.Helper()
	select {
	case ev, ok := <-w.engine.Events():
		if !ok {
			w.t.Fatal("the events ended")
		}
		if ev.State != state || ev.Reason != reason {
			w.t.Fatalf("event %+v, want state %v, reason %q", ev, state, reason)
		}
		return ev
	case <-time.After(patience):
		w.t.Fatalf("no event; want state %v, reason %q", state, reason)
	}
	return engine.Event{}
}

func (q *qubeOf) release() {
	q.t.Helper()
	if err := q.engine.Release(q.t.Context(), q.machine.UUID); err != nil {
		q.t.Error(err)
	}
}

// stop ends the machine in the orderly way.
func (q *qubeOf) stop() {
	q.t.Helper()
	if err := q.engine.Shutdown(q.t.Context(), q.machine.UUID); err != nil {
		q.t.Fatal(err)
	}
	q.expect(engine.Absent, engine.Stopped)
	q.release()
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// image makes an empty ext4 image of so many MiB.
func image(t testing.TB, dir, name string, size int64) string {
	t.Helper()
	path := filepath.Join(dir, name+".img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", path).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	return path
}

// traceless fails the test when a machine left something behind.
func (w *world) traceless() {
	w.t.Helper()
	for _, trace := range traces(w.t, w.root, w.uuids) {
		w.t.Errorf("left behind: %s", trace)
	}
}

// traces lists what machines could leave behind on the host: mounts, loop
// devices, processes, control groups and files.
func traces(t testing.TB, root paths.Root, uuids []string) []string {
	t.Helper()
	var found []string
	top := filepath.Dir(string(root)) // the test's folder
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, top) || strings.Contains(line, " cubicle ") {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, loop := range loops {
		if name, err := os.ReadFile(loop); err == nil && strings.HasPrefix(string(name), top) {
			found = append(found, "loop device with "+strings.TrimSpace(string(name)))
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), string(root)) {
			found = append(found, "process "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	machines, err := filepath.Glob(root.Machines() + "/*")
	if err != nil {
		t.Fatal(err)
	}
	found = append(found, machines...)
	for _, uuid := range uuids {
		for _, pattern := range []string{"/sys/fs/cgroup/cubicle/", "/sys/fs/cgroup/*/cubicle/"} {
			groups, err := filepath.Glob(pattern + uuid)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, groups...)
		}
	}
	return found
}
