package core_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/engine"
	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/storage/file"
	"cubicle/daemon/store"
)

func qubeFile(s *coretest.System, name string) string {
	return filepath.Join(s.Dir, "state/appvms", name, "qube.toml")
}

// restart closes a core and opens the next one on the same state.
func restart(t *testing.T, s *coretest.System) *coretest.System {
	t.Helper()
	s.Close()
	next, err := coretest.Start(s.World, s.Dir, core.WallClock{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Close)
	return next
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// A damaged file breaks its own qube alone, and a repaired one is picked up.
func TestDamagedFile(t *testing.T) {
	s := coretest.NewSystem(t)
	for _, name := range []string{"work", "other"} {
		if _, err := s.NewQube(name, "red"); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(qubeFile(s, "work"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(qubeFile(s, "work"), []byte("uuid = \x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = restart(t, s)
	q, ok := s.View().Named("work")
	if !ok || q.State() != qube.NA || !strings.Contains(q.Trouble(), "qube.toml") || q.Property("trouble") != q.Trouble() {
		t.Fatalf("the damaged qube is %v %v: %q", ok, q.State(), q.Trouble())
	}
	if err := s.Done(s.Start(q.UUID())); err == nil || !strings.Contains(err.Error(), "qube.toml") {
		t.Errorf("its start: %v", err)
	}
	other, _ := s.View().Named("other")
	if err := s.Done(s.Start(other.UUID())); err != nil {
		t.Errorf("the other qube: %v", err)
	}
	third, err := s.NewQube("third", "red") // it gets the number of the damaged one
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(qubeFile(s, "work"), good, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the repaired file is not picked up", func() bool {
		q, ok = s.View().Named("work")
		return ok && q.State() == qube.Halted && q.Trouble() == ""
	})
	if err := s.Done(s.Start(q.UUID())); err != nil {
		t.Errorf("the start of the repaired qube: %v", err)
	}
	if other, _ := s.View().Lookup(third); other.QID() == q.QID() {
		t.Errorf("two qubes have the number %d", q.QID())
	}
}

// A machine that its engine does not wholly know is told of, and is ended as
// any other.
func TestMachineThatIsNotWhollyKnown(t *testing.T) {
	s := coretest.NewSystem(t)
	id, err := s.NewQube("work", "red")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.Start(id)); err != nil {
		t.Fatal(err)
	}
	s.World.Set(func(w *coretest.World) { w.Trouble = "its record cannot be read" })
	s = restart(t, s)
	q, _ := s.View().Lookup(id)
	if q.State() == qube.Halted || q.XID() < 0 || q.Trouble() != "its record cannot be read" {
		t.Errorf("%s, %d, %q", q.State(), q.XID(), q.Trouble())
	}
	if err := s.Done(s.Remove(id)); core.KindOf(err) != core.NotHalted {
		t.Errorf("its removal: %v", err)
	}
	if err := s.Done(s.Kill(id)); err != nil {
		t.Fatal(err)
	}
	if q, _ := s.View().Lookup(id); q.State() != qube.Halted {
		t.Errorf("%s after it was killed", q.State())
	}
	if left := s.World.Leftovers(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A qube whose file is damaged while it runs runs on.
func TestDamagedFileOfARunningQube(t *testing.T) {
	s := coretest.NewSystem(t)
	id, err := s.NewQube("work", "red")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.Start(id)); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(qubeFile(s, "work"))
	if err != nil {
		t.Fatal(err)
	}
	damage := func(text []byte) {
		if err := os.WriteFile(qubeFile(s, "work"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage([]byte("{"))
	s = restart(t, s)
	await(t, "it does not run on", func() bool { return s.State(id) == qube.Running })
	if q, _ := s.View().Lookup(id); q.Trouble() == "" {
		t.Error("nobody learns that its file is damaged")
	}
	damage(good)
	await(t, "the repaired file is not picked up", func() bool {
		q, _ := s.View().Lookup(id)
		return q.Trouble() == "" && q.State() == qube.Running && q.Label().Name == "red"
	})
	damage([]byte("{"))
	s = restart(t, s)
	await(t, "it does not run on again", func() bool { return s.State(id) == qube.Running })
	if err := s.Done(s.Kill(id)); err != nil {
		t.Fatal(err)
	}
	if state := s.State(id); state != qube.NA {
		t.Errorf("down it is %s", state)
	}
}

// What a qube wrote is kept also when it ends while no daemon looks.
func TestEndUnseenIsCommitted(t *testing.T) {
	s := coretest.NewSystem(t)
	id, err := s.NewQube("work", "red")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.Start(id)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Engine.Crash(string(id), engine.Stopped)
	before := s.World.Commits("appvms/work/private")
	s = restart(t, s)
	if state := s.State(id); state != qube.Halted {
		t.Errorf("it is %s", state)
	}
	if after := s.World.Commits("appvms/work/private"); after != before+1 {
		t.Errorf("%d commits of its private volume, not one", after-before)
	}
}

// onDisk is a core whose state and volumes are real, below a folder.
func onDisk(t *testing.T, w *coretest.World, dir string) *core.Core {
	t.Helper()
	state := filepath.Join(dir, "state")
	st, err := store.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := file.New("file", state)
	if err != nil {
		t.Fatal(err)
	}
	r := w.NewRouter()
	c, err := core.Open(context.Background(), core.Config{
		Store: st, Pools: []storage.Pool{pool}, Engines: []engine.Engine{w.NewEngine("test", r)},
		Router: r, Caller: w, Builder: w, Clock: core.WallClock{}, Log: slog.New(slog.DiscardHandler),
		Logs: filepath.Join(dir, "log"), Links: filepath.Join(dir, "links"), Runs: filepath.Join(dir, "runs"), AgentDir: dir, QrexecUID: os.Geteuid(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

func tree(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		list = append(list, strings.TrimPrefix(path, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// troubled checks that an operation fails by the right name, with a mend, and
// leaves the files as they were.
func troubled(t *testing.T, dir, what, mend string, do func() error) {
	t.Helper()
	before := tree(t, dir)
	err := do()
	if core.KindOf(err) != core.PoolFailure || err == nil || !strings.Contains(err.Error(), mend) {
		t.Errorf("%s: %v (%s)", what, err, core.KindOf(err))
	}
	if after := tree(t, dir); !slices.Equal(before, after) {
		t.Errorf("%s left %v; before there was %v", what, after, before)
	}
}

func smallQube(c *core.Core, name string) error {
	id, err := c.Create(core.NewQube{Name: name, Class: "AppVM", Label: "red", Sizes: map[string]int64{"private": 16 << 20}})
	if err != nil {
		return err
	}
	return c.Wait(context.Background(), id)
}

func TestFullAndReadOnlyDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a tiny file system needs root")
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	if err := errors.Join(os.Mkdir(mount, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, 48<<20)); err != nil {
		t.Fatal(err)
	}
	command(t, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", image)
	command(t, "mount", "-o", "loop", image, mount)
	t.Cleanup(func() { command(t, "umount", mount) })

	w := coretest.New()
	c := onDisk(t, w, mount)
	id, err := c.CreateTemplate("debian-12", "debian-12")
	if err == nil {
		err = c.Wait(t.Context(), id)
	}
	if err == nil {
		err = smallQube(c, "work")
	}
	if err != nil {
		t.Fatal(err)
	}
	work, _ := c.View().Named("work")
	state := filepath.Join(mount, "state")

	// Fill what is left, but for a few blocks.
	filler, err := os.Create(filepath.Join(mount, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	for chunk := make([]byte, 64<<10); err == nil; {
		_, err = filler.Write(chunk)
	}
	for chunk := make([]byte, 512); ; {
		if _, err := filler.Write(chunk); err != nil {
			break
		}
	}
	const full, readOnly = "the disk is full", "the disk is read-only"
	operations := func(mend string) {
		troubled(t, state, "create", mend, func() error { return smallQube(c, "more") })
		troubled(t, state, "set a property", mend, func() error { return c.SetProperty(work.UUID(), "label", "green") })
		troubled(t, state, "start", mend, func() error {
			id, err := c.Start(work.UUID())
			if err != nil {
				return err
			}
			return c.Wait(t.Context(), id)
		})
		troubled(t, state, "clone", mend, func() error {
			id, err := c.Clone(work.UUID(), "copy", qube.Dom0)
			if err != nil {
				return err
			}
			return c.Wait(t.Context(), id)
		})
		troubled(t, state, "resize", mend, func() error { return c.ResizeVolume(t.Context(), work.UUID(), "private", 24<<20) })
		troubled(t, state, "write notes", mend, func() error { return c.SetNotes(work.UUID(), "a note") })
		if q, _ := c.View().Named("work"); q.Property("label") != "red" || q.State() != qube.Halted {
			t.Errorf("work is %s and %s", q.Property("label"), q.State())
		}
		if _, ok := c.View().Named("more"); ok {
			t.Error("a qube that could not be made is there")
		}
	}
	operations(full)
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	filler.Close()
	command(t, "mount", "-o", "remount,ro", mount)
	operations(readOnly)
	command(t, "mount", "-o", "remount,rw", mount)

	// With room again, all goes on.
	if err := smallQube(c, "more"); err != nil {
		t.Error(err)
	}
	if err := c.SetProperty(work.UUID(), "label", "green"); err != nil {
		t.Error(err)
	}
	if id, err = c.Start(work.UUID()); err == nil {
		err = c.Wait(t.Context(), id)
	}
	if err != nil {
		t.Error(err)
	}
	for _, b := range w.Breaches() {
		t.Error(b)
	}
}
