package enginetest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/storage"
)

func testLifecycle(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	if got := q.ask("ping"); got != "pong" {
		t.Errorf("the machine answers %q", got)
	}
	if got := q.ask("hostname"); got != string(q.machine.Name) {
		t.Errorf("its host name is %q", got)
	}
	// What it says is on its console log at once, not when it ends.
	log := filepath.Join(w.root.Log(), "console-"+string(q.machine.Name)+".log")
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		console, err := os.ReadFile(log)
		if err == nil && strings.Contains(string(console), "testinit is up") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the console log holds %q, %v", console, err)
		}
	}
	found, err := w.engine.Running(t.Context())
	if err != nil || len(found) != 1 || found[0].UUID != q.machine.UUID || found[0].Domain != q.machine.Domain || found[0].State != engine.Up {
		t.Errorf("Running() = %+v, %v", found, err)
	}
	if err := w.engine.Release(t.Context(), q.machine.UUID); !errors.Is(err, engine.ErrRunning) {
		t.Errorf("Release of a running machine: %v", err)
	}
	if err := w.engine.Shutdown(t.Context(), q.machine.UUID); err != nil {
		t.Fatal(err)
	}
	if ev := q.expect(engine.Absent, engine.Stopped); ev.UUID != q.machine.UUID {
		t.Errorf("the event is of machine %s", ev.UUID)
	}
	if found, err := w.engine.Running(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("after the end Running() = %+v, %v", found, err)
	}

	// What is still prepared runs again.
	if err := w.engine.Start(t.Context(), q.machine.UUID); err != nil {
		t.Fatalf("the second start: %v", err)
	}
	q.expect(engine.Up, "")
	q.accept()
	q.stop()
}

func testKill(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	if err := w.engine.Kill(t.Context(), q.machine.UUID); err != nil {
		t.Fatal(err)
	}
	q.expect(engine.Absent, engine.Killed)
	if err := w.engine.Kill(t.Context(), q.machine.UUID); !errors.Is(err, engine.ErrNotRunning) {
		t.Errorf("a second Kill: %v", err)
	}
	q.release()
	q.release() // does nothing
}

func testCrash(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	q.say("exit 7")
	if ev := q.expect(engine.Absent, engine.Crashed); !strings.Contains(ev.Detail, "7") {
		t.Errorf("the detail does not tell the status: %q", ev.Detail)
	}
	if err := w.engine.Shutdown(t.Context(), q.machine.UUID); !errors.Is(err, engine.ErrNotRunning) {
		t.Errorf("Shutdown of a machine that ended: %v", err)
	}
	q.release()
}

func testPause(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	if err := w.engine.Pause(t.Context(), q.machine.UUID); err != nil {
		t.Fatal(err)
	}
	q.expect(engine.Suspended, "")
	q.say("ping")
	if err := q.conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if text, err := q.lines.ReadString('\n'); err == nil {
		t.Fatalf("a paused machine answers %q", text)
	}
	if err := w.engine.Resume(t.Context(), q.machine.UUID); err != nil {
		t.Fatal(err)
	}
	q.expect(engine.Up, "")
	if got := q.line(); got != "pong" {
		t.Errorf("after the pause: %q", got)
	}
	q.stop()
}

func testKillPaused(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	if err := w.engine.Pause(t.Context(), q.machine.UUID); err != nil {
		t.Fatal(err)
	}
	q.expect(engine.Suspended, "")
	if err := w.engine.Kill(t.Context(), q.machine.UUID); err != nil {
		t.Fatal(err)
	}
	q.expect(engine.Absent, engine.Killed)
	q.release()
}

func testStats(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	before, err := w.engine.Stats(t.Context(), q.machine.UUID)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(q.machine.Memory) << 20; before.MemoryMax != want {
		t.Errorf("MemoryMax is %d, want %d", before.MemoryMax, want)
	}
	if got := q.ask("eat 64"); got != "ok" {
		t.Fatal(got)
	}
	if got := q.ask("spin"); got != "ok" {
		t.Fatal(got)
	}
	after, err := w.engine.Stats(t.Context(), q.machine.UUID)
	if err != nil {
		t.Fatal(err)
	}
	if grown := (after.Memory - before.Memory) >> 20; grown < 48 || grown > 160 {
		t.Errorf("after 64 MiB the memory in use grew by %d MiB", grown)
	}
	if used := after.CPU - before.CPU; used < 100*time.Millisecond {
		t.Errorf("after 200 ms of work the processor time grew by %v", used)
	}
	q.stop()
	if _, err := w.engine.Stats(t.Context(), q.machine.UUID); !errors.Is(err, engine.ErrNotRunning) {
		t.Errorf("Stats of an absent machine: %v", err)
	}
}

func testMemoryLimit(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	q.say("eat %d", 4*q.machine.Memory)
	if ev := q.expect(engine.Absent, engine.OutOfMemory); !strings.Contains(ev.Detail, "memory") {
		t.Errorf("the detail is %q", ev.Detail)
	}
	q.release()
}

// Where a machine outlives a program of its that took too much, the engine
// tells of that; where it does not, that it ended for want of memory.
func testGreedyProgram(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	q.say("let-eat %d", 4*q.machine.Memory)
	var ev engine.Event
	select {
	case ev = <-w.engine.Events():
	case <-time.After(patience):
		t.Fatal("nobody is told that memory was not enough")
	}
	if ev.Reason != engine.OutOfMemory || !strings.Contains(ev.Detail, "memory") {
		t.Errorf("the event is %+v", ev)
	}
	if ev.State == engine.Absent {
		q.release()
		return
	}
	if got := q.line(); ev.State != engine.Up || !strings.Contains(got, "killed") {
		t.Errorf("the event %+v, and %s", ev, got)
	}
	if got := q.ask("ping"); got != "pong" {
		t.Errorf("the machine answers %q", got)
	}
	q.stop()
}

func testNoNetwork(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	if got := q.ask("interfaces"); got != "lo" {
		t.Errorf("the machine has the interfaces %q", got)
	}
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listen.Close()
	if got := q.ask("connect %s", listen.Addr()); !strings.HasPrefix(got, "error") {
		t.Errorf("the machine reaches dom0's loopback: %q", got)
	}
	q.stop()
}

func testUsers(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	if got := q.ask("ids"); !strings.HasPrefix(got, "0 0 ") {
		t.Errorf("init runs as %q", got)
	}
	for _, path := range []string{"/rw/mine", "/mine"} {
		if got := q.ask("write %s x", path); got != "ok" {
			t.Fatalf("write %s: %s", path, got)
		}
		if got := q.ask("chown %s 1000", path); got != "ok" {
			t.Fatalf("chown %s: %s", path, got)
		}
		if got := q.ask("owner %s", path); got != "1000 1000" {
			t.Errorf("%s belongs to %q", path, got)
		}
	}
	// The agent's folder is dom0's.
	if got := q.ask("write %s/x x", engine.AgentDir); !strings.HasPrefix(got, "error") {
		t.Errorf("the qube writes to the agent's folder: %s", got)
	}
	q.stop()
	if uid := ownerInImage(t, q.machine.Private.Base.Path, "/mine"); uid != "1000" {
		t.Errorf("in the image the file belongs to %q", uid)
	}
}

func testVolumes(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	if got := q.ask("write /root-was-written yes"); got != "ok" {
		t.Errorf("the root cannot be written: %s", got)
	}
	if got := q.ask("write /rw/private-was-written yes"); got != "ok" {
		t.Errorf("the private volume cannot be written: %s", got)
	}
	if size, err := strconv.ParseInt(q.ask("size /rw"), 10, 64); err != nil || size > 32<<20 || size < 16<<20 {
		t.Errorf("the private volume has %d bytes, %v", size, err)
	}
	q.stop()

	q.machine.Root.Overlay = &storage.Layer{Path: image(t, t.TempDir(), "overlay", 16), Format: storage.Raw}
	q.start()
	if got := q.ask("read /root-was-written"); !strings.HasPrefix(got, "error") {
		t.Errorf("a fresh overlay holds %q", got)
	}
	if got := q.ask("read /rw/private-was-written"); got != "yes" {
		t.Errorf("the private volume holds %q", got)
	}
	q.stop()

	// A disposable starts from another qube's private volume.
	private := q.machine.Private
	q.machine.Private.Base.ReadOnly = true
	q.machine.Private.Overlay = &storage.Layer{Path: image(t, t.TempDir(), "private-overlay", 16), Format: storage.Raw}
	q.machine.Root.Overlay = &storage.Layer{Path: image(t, t.TempDir(), "overlay", 16), Format: storage.Raw}
	q.start()
	if got := q.ask("read /rw/private-was-written"); got != "yes" {
		t.Errorf("the disposable's private volume holds %q", got)
	}
	if got := q.ask("write /rw/private-was-written no"); got != "ok" {
		t.Errorf("the disposable's private volume cannot be written: %s", got)
	}
	q.stop()
	q.machine.Private = private
	q.machine.Root.Overlay = &storage.Layer{Path: image(t, t.TempDir(), "overlay", 16), Format: storage.Raw}
	q.start()
	if got := q.ask("read /rw/private-was-written"); got != "yes" {
		t.Errorf("a disposable has changed the private volume that it started from: %q", got)
	}
	q.stop()

	// A TemplateVM writes its root itself.
	q.machine.Root = storage.Attachment{Base: storage.Layer{Path: q.machine.Root.Base.Path, Format: storage.Raw}}
	q.start()
	if got := q.ask("write /installed yes"); got != "ok" {
		t.Errorf("a template's root cannot be written: %s", got)
	}
	q.stop()
	if uid := ownerInImage(t, q.machine.Root.Base.Path, "/installed"); uid != "0" {
		t.Errorf("in the template the file belongs to %q", uid)
	}

	q.machine.Private.Base.Foreign = true
	if err := w.engine.Prepare(t.Context(), q.machine); !errors.Is(err, engine.ErrUnsupported) {
		t.Errorf("a foreign volume: %v", err)
	}
}

func testLink(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	if got := q.ask("dead-link"); !strings.HasPrefix(got, "error") {
		t.Errorf("the qube removes dom0's socket: %s", got)
	}
	// qrexecd starts again: a new socket in the same folder.
	q.listen.Close()
	q.listenLink()
	q.conn.Close()
	q.accept()
	if got := q.ask("ping"); got != "pong" {
		t.Errorf("over the new link: %q", got)
	}
	q.stop()
}

func testSharedMemory(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	fd, err := unix.MemfdCreate("region", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	copy(mem, "dom0 was here")
	if got := q.ask("memory"); got != "send" {
		t.Fatal(got)
	}
	if _, _, err := q.conn.WriteMsgUnix([]byte{0}, unix.UnixRights(fd), nil); err != nil {
		t.Fatal(err)
	}
	if got := q.line(); got != "dom0 was here" {
		t.Errorf("the qube read %q", got)
	}
	if got := string(mem[64 : 64+17]); got != "the qube was here" {
		t.Errorf("dom0 reads %q", got)
	}
	q.stop()
}

func testFoundAgain(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	w.reopen()
	if got := q.ask("ping"); got != "pong" {
		t.Fatalf("after the engine's end the machine answers %q", got)
	}
	found, err := w.engine.Running(t.Context())
	if err != nil || len(found) != 1 || found[0].UUID != q.machine.UUID || found[0].Domain != q.machine.Domain {
		t.Fatalf("Running() = %+v, %v", found, err)
	}
	if err := w.engine.Prepare(t.Context(), q.machine); !errors.Is(err, engine.ErrRunning) {
		t.Errorf("Prepare of a found machine: %v", err)
	}
	if err := w.engine.Pause(t.Context(), q.machine.UUID); err != nil {
		t.Error(err)
	}
	q.expect(engine.Suspended, "")

	w.reopen()
	if found, err := w.engine.Running(t.Context()); err != nil || len(found) != 1 || found[0].State != engine.Suspended {
		t.Fatalf("Running() = %+v, %v", found, err)
	}
	if err := w.engine.Resume(t.Context(), q.machine.UUID); err != nil {
		t.Error(err)
	}
	q.expect(engine.Up, "")
	if _, err := w.engine.Stats(t.Context(), q.machine.UUID); err != nil {
		t.Error(err)
	}
	q.stop()
}

func testEndedUnseen(t *testing.T, w *world) {
	q := w.qube()
	q.start()
	if err := w.engine.Close(); err != nil {
		t.Error(err)
	}
	q.say("exit 0")
	if _, err := q.lines.ReadString('\n'); err == nil {
		t.Error("the machine did not end")
	}
	w.engine = w.open(t, w.root)
	deadline := time.Now().Add(patience)
	for {
		found, err := w.engine.Running(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 1 && found[0].State == engine.Absent {
			if found[0].Reason != engine.Stopped {
				t.Errorf("it ended: %s", found[0].Reason)
			}
			break
		}
		if len(found) == 0 {
			break
		}
		// It was just ending: then there is an event.
		q.expect(engine.Absent, engine.Stopped)
		if time.Now().After(deadline) {
			t.Fatal("the machine does not end")
		}
	}
	q.release() // does nothing where it was not found
	w.traceless()
	q.start()
	q.stop()
}

func testTwoMachines(t *testing.T, w *world) {
	a, b := w.qube(), w.qube()
	b.machine.Root.Base = a.machine.Root.Base // the same template
	a.start()
	b.start()
	ids := func(q *qubeOf) string { return strings.TrimPrefix(q.ask("ids"), "0 0 ") }
	if w.engine.Capabilities().Isolation == engine.Namespaces {
		if x, y := ids(a), ids(b); x == y {
			t.Errorf("both machines have the host's ids %s", x)
		}
	}
	if got := a.ask("write /only-in-a x"); got != "ok" {
		t.Error(got)
	}
	if got := b.ask("read /only-in-a"); !strings.HasPrefix(got, "error") {
		t.Errorf("one machine sees what the other wrote: %q", got)
	}
	a.stop()
	if got := b.ask("ping"); got != "pong" {
		t.Errorf("after the other's end: %q", got)
	}
	// The template's image is still mounted for b.
	a.start()
	a.stop()
	b.stop()
}

func testWrongOrder(t *testing.T, w *world) {
	q := w.qube()
	ctx, uuid := t.Context(), q.machine.UUID
	for name, call := range map[string]func() error{
		"Start":    func() error { return w.engine.Start(ctx, uuid) },
		"Pause":    func() error { return w.engine.Pause(ctx, uuid) },
		"Resume":   func() error { return w.engine.Resume(ctx, uuid) },
		"Shutdown": func() error { return w.engine.Shutdown(ctx, uuid) },
		"Kill":     func() error { return w.engine.Kill(ctx, uuid) },
	} {
		if err := call(); !errors.Is(err, engine.ErrNotRunning) {
			t.Errorf("%s of nothing: %v", name, err)
		}
	}
	q.release() // does nothing
	q.prepare()
	if err := w.engine.Prepare(ctx, q.machine); !errors.Is(err, engine.ErrRunning) {
		t.Errorf("a second Prepare: %v", err)
	}
	if err := w.engine.Kill(ctx, uuid); !errors.Is(err, engine.ErrNotRunning) {
		t.Errorf("Kill of a prepared machine: %v", err)
	}
	q.release()
	q.machine.UUID = "../../etc"
	if err := w.engine.Prepare(ctx, q.machine); err == nil {
		t.Error("a machine is named by a path")
	}
	if err := w.engine.Release(ctx, q.machine.UUID); err == nil {
		t.Error("a machine named by a path is released")
	}
}

func testStartFails(t *testing.T, w *world) {
	q := w.qube()
	q.machine.AgentDir = t.TempDir() // no agent in it
	q.prepare()
	err := w.engine.Start(t.Context(), q.machine.UUID)
	if err == nil {
		t.Fatal("a machine without a program runs")
	}
	if !strings.Contains(err.Error(), engine.AgentBinary) {
		t.Errorf("the error does not name the program: %v", err)
	}
	if found, err := w.engine.Running(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("Running() = %+v, %v", found, err)
	}
	q.release()

	q.machine.AgentDir = w.agent
	good := q.machine.Private.Base.Path
	q.machine.Private.Base.Path = filepath.Join(t.TempDir(), "missing.img")
	if err := w.engine.Prepare(t.Context(), q.machine); err == nil || !strings.Contains(err.Error(), "missing.img") {
		t.Errorf("a missing image: %v", err)
	}
	q.machine.Private.Base.Path = filepath.Join(t.TempDir(), "empty.img")
	if err := os.WriteFile(q.machine.Private.Base.Path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.engine.Prepare(t.Context(), q.machine); err == nil || !strings.Contains(err.Error(), "empty.img") {
		t.Errorf("an empty image: %v", err)
	}
	q.machine.Private.Base.Path = good
	q.start()
	q.stop()
}

func testClosedParent(t *testing.T, w *world) {
	if err := os.Chmod(string(w.root), 0o700); err != nil {
		t.Fatal(err)
	}
	q := w.qube()
	q.start()
	if got := q.ask("ping"); got != "pong" {
		t.Errorf("below a closed folder: %q", got)
	}
	q.stop()
}

func testPreparedAndReleased(t *testing.T, w *world) {
	q := w.qube()
	q.prepare()
	q.release()
	q.prepare()
	w.reopen() // releases what does not run
	q.start()
	q.stop()
}

// testDangers is for engines whose qubes share dom0's kernel.
func testDangers(t *testing.T, w *world) {
	if w.engine.Capabilities().Isolation != engine.Namespaces {
		t.Skip("the qube has a kernel of its own")
	}
	q := w.qube()
	q.start()
	if got := q.ask("dangers"); got != "let through:" {
		t.Error(got)
	}
	q.stop()
}

func testAtOnce(t *testing.T, w *world) {
	const n = 4
	qubes := make([]*qubeOf, n)
	for i := range qubes {
		qubes[i] = w.qube()
		if i > 0 { // the same template by another name, as pools give it
			base := &qubes[i].machine.Root.Base
			if err := errors.Join(os.Remove(base.Path), os.Link(qubes[0].machine.Root.Base.Path, base.Path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := func(do func(q *qubeOf) error) {
		t.Helper()
		errs := make(chan error, n)
		for _, q := range qubes {
			go func() { errs <- do(q) }()
		}
		for range qubes {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	}
	ctx := t.Context()
	all(func(q *qubeOf) error {
		return errors.Join(w.engine.Prepare(ctx, q.machine), w.engine.Start(ctx, q.machine.UUID))
	})
	for _, q := range qubes {
		w.expect(engine.Up, "")
		q.accept()
		if got := q.ask("hostname"); got != string(q.machine.Name) {
			t.Errorf("%s is called %s", q.machine.Name, got)
		}
	}
	all(func(q *qubeOf) error { return w.engine.Kill(ctx, q.machine.UUID) })
	for range qubes {
		w.expect(engine.Absent, engine.Killed)
	}
	all(func(q *qubeOf) error { return w.engine.Release(ctx, q.machine.UUID) })
}
