// Package storagetest is the conformance suite of storage.Pool: what every
// driver must do. Files are put into volumes with debugfs, so that the suite
// needs neither root nor a mount; only the test of a full pool does.
package storagetest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cubicle/daemon/storage"
)

// Open returns the pool under test in a folder; it may be called again for the
// same folder, as a restarted daemon would. It does not call Recover.
type Open func(t *testing.T, dir string) storage.Pool

const mib = 1 << 20

// TestPool runs the suite.
func TestPool(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, *pool){
		"CreateAndRemove":      testCreateAndRemove,
		"BadSpecs":             testBadSpecs,
		"OriginKeeps":          testOriginKeeps,
		"OriginWithoutCommit":  testOriginWithoutCommit,
		"InPlace":              testInPlace,
		"Snapshot":             testSnapshot,
		"SnapshotKeepsVersion": testSnapshotKeepsVersion,
		"SnapshotOfInPlace":    testSnapshotOfInPlace,
		"Volatile":             testVolatile,
		"Revisions":            testRevisions,
		"KeptRevisions":        testKeptRevisions,
		"Import":               testImport,
		"Clone":                testClone,
		"CloneCancelled":       testCloneCancelled,
		"Export":               testExport,
		"Clear":                testClear,
		"Resize":               testResize,
		"InUse":                testInUse,
		"CrashKeepsOrigin":     testCrashKeepsOrigin,
		"RecoverRunning":       testRecoverRunning,
		"RecoverCleans":        testRecoverCleans,
		"Usage":                testUsage,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, newPool(t, open, t.TempDir()))
		})
	}
	t.Run("Full", func(t *testing.T) { testFull(t, open) })
}

// pool is the pool under test with its folder.
type pool struct {
	storage.Pool
	t    *testing.T
	open Open
	dir  string
}

func newPool(t *testing.T, open Open, dir string) *pool {
	p := &pool{t: t, open: open, dir: dir}
	p.restart()
	return p
}

// restart is a restart of the daemon while the given volumes are in use.
func (p *pool) restart(running ...storage.VID) {
	p.t.Helper()
	p.Pool = p.open(p.t, p.dir)
	p.must(p.Recover(p.t.Context(), running))
}

func (p *pool) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *pool) mustBe(err, kind error) {
	p.t.Helper()
	if !errors.Is(err, kind) {
		p.t.Errorf("got the error %v, want %v", err, kind)
	}
}

func (p *pool) create(s storage.Spec) storage.Spec {
	p.t.Helper()
	p.must(p.Create(p.t.Context(), s))
	return s
}

func (p *pool) start(s storage.Spec) storage.Attachment {
	p.t.Helper()
	a, err := p.Start(p.t.Context(), s)
	p.must(err)
	return a
}

func (p *pool) stop(s storage.Spec, commit bool) {
	p.t.Helper()
	p.must(p.Stop(p.t.Context(), s, commit))
}

func (p *pool) info(s storage.Spec) storage.Info {
	p.t.Helper()
	info, err := p.Info(p.t.Context(), s)
	p.must(err)
	return info
}

// run starts an origin, puts text into a file of it and stops it.
func (p *pool) run(s storage.Spec, text string, commit bool) {
	p.t.Helper()
	put(p.t, p.start(s).Base.Path, text)
	p.stop(s, commit)
}

// holds fails the test when the origin does not hold the text.
func (p *pool) holds(s storage.Spec, want string) {
	p.t.Helper()
	if got := get(p.t, p.start(s).Base.Path); got != want {
		p.t.Errorf("%s holds %q, want %q", s.VID, got, want)
	}
	p.stop(s, false)
}

// files lists what is in the pool's folder.
func (p *pool) files() []string {
	p.t.Helper()
	var list []string
	err := filepath.WalkDir(p.dir, func(path string, e os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(p.dir, path); err == nil && path != p.ImportDir() && rel != "." {
			list = append(list, rel)
		}
		return err
	})
	p.must(err)
	return list
}

// put writes text into the file "test" of an image that nothing mounts.
func put(t *testing.T, image, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	debugfs(t, image, "rm test")
	debugfs(t, image, "write "+file+" test")
}

// get reads that file; "" when it is not there.
func get(t *testing.T, image string) string {
	t.Helper()
	text := debugfs(t, image, "cat test")
	if strings.Contains(text, "File not found") {
		return ""
	}
	return text
}

func debugfs(t *testing.T, image, command string) string {
	t.Helper()
	cmd := exec.Command("debugfs", "-w", "-R", command, image)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "DEBUGFS_PAGER=__none__")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("debugfs %s: %v\n%s", command, err, out)
	}
	_, text, _ := strings.Cut(string(out), "\n") // its version
	return text
}

// fsck fails the test when the image holds no sound ext4 file system.
func fsck(t *testing.T, image string) {
	t.Helper()
	cmd := exec.Command("e2fsck", "-f", "-n", image)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("e2fsck %s: %v\n%s", image, err, out)
	}
}

// The volumes of the tests.

func templateRoot() storage.Spec {
	return storage.Spec{VID: "vm-templates/debian/root", Size: 16 * mib, SaveOnStop: true, ReadWrite: true, Revisions: 2}
}

func appRoot() storage.Spec {
	return storage.Spec{VID: "appvms/work/root", Size: 16 * mib, SnapOnStart: true, ReadWrite: true, Source: "vm-templates/debian/root"}
}

func private() storage.Spec {
	return storage.Spec{VID: "appvms/work/private", Size: 16 * mib, SaveOnStop: true, ReadWrite: true}
}

func volatile() storage.Spec {
	return storage.Spec{VID: "appvms/work/volatile", Size: 16 * mib, ReadWrite: true}
}

func testCreateAndRemove(t *testing.T, p *pool) {
	p.create(templateRoot())
	for _, s := range []storage.Spec{appRoot(), private(), volatile()} {
		if _, err := p.Info(t.Context(), s); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("Info of %s before it is there: %v", s.VID, err)
		}
		if _, err := p.Start(t.Context(), s); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("Start of %s before it is there: %v", s.VID, err)
		}
		p.must(p.Remove(t.Context(), s)) // does nothing
		p.create(s)
		p.mustBe(p.Create(t.Context(), s), storage.ErrExists)
		if info := p.info(s); info.Size != s.Size || info.Running || len(info.Revisions) != 0 {
			t.Errorf("%s is new: %+v", s.VID, info)
		}
		if info := p.info(s); !s.SaveOnStop && info.Usage != 0 {
			t.Errorf("%s takes %d bytes before it starts", s.VID, info.Usage)
		}
		a := p.start(s)
		if s.SaveOnStop {
			fsck(t, a.Base.Path)
		}
		p.stop(s, true)
		p.must(p.Remove(t.Context(), s))
		p.must(p.Remove(t.Context(), s))
	}
	p.must(p.Remove(t.Context(), templateRoot()))
	for _, file := range p.files() {
		if strings.Contains(filepath.Base(file), ".") {
			t.Errorf("%s is left", file)
		}
	}
}

func testBadSpecs(t *testing.T, p *pool) {
	for what, change := range map[string]func(*storage.Spec){
		"both kept and a copy": func(s *storage.Spec) { s.SnapOnStart, s.Source = true, "vm-templates/debian/root" },
		"no size":              func(s *storage.Spec) { s.Size = 0 },
		"a size below zero":    func(s *storage.Spec) { s.Size = -1 },
		"a source":             func(s *storage.Spec) { s.Source = "vm-templates/debian/root" },
		"no name":              func(s *storage.Spec) { s.VID = "" },
		"a way out":            func(s *storage.Spec) { s.VID = "appvms/../../etc/passwd" },
		"an absolute name":     func(s *storage.Spec) { s.VID = "/etc/passwd" },
		"a hidden name":        func(s *storage.Spec) { s.VID = "appvms/.import/x" },
		"a strange name":       func(s *storage.Spec) { s.VID = "appvms/work/a b" },
		"a snapshot of nothing": func(s *storage.Spec) {
			s.SaveOnStop, s.SnapOnStart = false, true
		},
		"a snapshot of itself": func(s *storage.Spec) {
			s.SaveOnStop, s.SnapOnStart, s.Source = false, true, s.VID
		},
	} {
		s := private()
		change(&s)
		if err := p.Create(t.Context(), s); !errors.Is(err, storage.ErrBadVolume) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if files := p.files(); len(files) != 0 {
		t.Errorf("what failed left %v", files)
	}
}

func testOriginKeeps(t *testing.T, p *pool) {
	s := p.create(templateRoot())
	p.run(s, "first", true)
	p.holds(s, "first")
	p.restart()
	p.holds(s, "first")
}

func testOriginWithoutCommit(t *testing.T, p *pool) {
	s := p.create(templateRoot())
	p.run(s, "first", true)
	before := p.info(s)
	p.run(s, "dropped", false)
	p.holds(s, "first")
	if after := p.info(s); after.Version != before.Version || !slices.Equal(after.Revisions, before.Revisions) {
		t.Errorf("a run without commit made %+v of %+v", after, before)
	}
	p.stop(s, true) // not started: does nothing
}

func testInPlace(t *testing.T, p *pool) {
	s := p.create(private())
	p.run(s, "first", true)
	p.run(s, "second", true)
	p.holds(s, "second")
	if info := p.info(s); len(info.Revisions) != 0 {
		t.Errorf("a volume that keeps none has the revisions %v", info.Revisions)
	}
}

func testSnapshot(t *testing.T, p *pool) {
	origin, s := p.create(templateRoot()), p.create(appRoot())
	p.run(origin, "template", true)
	a := p.start(s)
	if !a.Base.ReadOnly || a.Overlay == nil || a.Overlay.ReadOnly {
		t.Fatalf("the snapshot is attached as %+v", a)
	}
	if got := get(t, a.Base.Path); got != "template" {
		t.Errorf("the snapshot holds %q", got)
	}
	fsck(t, a.Overlay.Path)
	if info, err := os.Stat(a.Overlay.Path); err != nil || info.Size() < s.Size {
		t.Errorf("the overlay has not the volume's size: %v, %v", info, err)
	}
	put(t, a.Overlay.Path, "written")
	if info := p.info(s); !info.Running || info.Outdated || info.Version != p.info(origin).Version {
		t.Errorf("running: %+v", info)
	}
	p.stop(s, true)
	if got := get(t, p.start(s).Overlay.Path); got != "" {
		t.Errorf("a new run finds %q", got)
	}
	p.stop(s, false)
	if info := p.info(s); info.Running || info.Usage != 0 {
		t.Errorf("stopped: %+v", info)
	}
}

func testSnapshotKeepsVersion(t *testing.T, p *pool) {
	origin := templateRoot()
	origin.Revisions = 0 // nothing keeps the old version but the snapshot
	p.create(origin)
	s := p.create(appRoot())
	p.run(origin, "old", true)
	a := p.start(s)
	version := p.info(s).Version
	o := p.start(origin)
	put(t, o.Base.Path, "new")
	if got := get(t, a.Base.Path); got != "old" {
		t.Errorf("while the template runs, the snapshot holds %q", got)
	}
	if p.info(s).Outdated {
		t.Error("outdated before the commit")
	}
	p.stop(origin, true)
	if got := get(t, a.Base.Path); got != "old" {
		t.Errorf("after the commit, the snapshot holds %q", got)
	}
	if info := p.info(s); !info.Outdated || info.Version != version {
		t.Errorf("after the commit: %+v", info)
	}
	p.stop(s, false)
	if got := get(t, p.start(s).Base.Path); got != "new" {
		t.Errorf("the next start holds %q", got)
	}
	if p.info(s).Outdated {
		t.Error("outdated after the start")
	}
	p.stop(s, false)
	p.must(p.Remove(t.Context(), origin))
	if _, err := p.Start(t.Context(), s); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("without its source: %v", err)
	}
}

// A source that is written in place has nothing to copy while it runs.
func testSnapshotOfInPlace(t *testing.T, p *pool) {
	origin, s := templateRoot(), appRoot()
	origin.Revisions = 0
	p.create(origin)
	p.create(s)
	p.start(origin)
	if a, err := p.Start(t.Context(), s); err == nil {
		// A driver that always copies can.
		if got := get(t, a.Base.Path); got != "" {
			t.Errorf("the snapshot holds %q", got)
		}
		p.stop(s, false)
	} else {
		p.mustBe(err, storage.ErrInUse)
	}
	p.stop(origin, true)
	p.start(s)
	p.stop(s, false)
}

func testVolatile(t *testing.T, p *pool) {
	s := p.create(volatile())
	for range 2 {
		a := p.start(s)
		data, err := os.ReadFile(a.Base.Path)
		if err != nil || int64(len(data)) != s.Size || strings.Trim(string(data), "\x00") != "" {
			t.Fatalf("a volatile volume is not empty: %d bytes, %v", len(data), err)
		}
		if err := os.WriteFile(a.Base.Path, []byte("written"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.stop(s, true)
	}
}

func testRevisions(t *testing.T, p *pool) {
	s := p.create(templateRoot())
	for _, text := range []string{"1", "2", "3", "4"} {
		p.run(s, text, true)
	}
	info := p.info(s)
	if len(info.Revisions) != s.Revisions {
		t.Fatalf("after four commits there are the revisions %v", info.Revisions)
	}
	p.mustBe(p.Revert(t.Context(), s, "none"), storage.ErrNotFound)
	p.must(p.Revert(t.Context(), s, info.Revisions[0])) // oldest first
	p.holds(s, "2")
	// The state before is a revision now, so that a revert can be undone.
	list := p.info(s).Revisions
	if len(list) != s.Revisions {
		t.Fatalf("after the revert there are the revisions %v", list)
	}
	p.must(p.Revert(t.Context(), s, list[len(list)-1]))
	p.holds(s, "4")
}

func testKeptRevisions(t *testing.T, p *pool) {
	s := p.create(templateRoot())
	p.run(s, "1", true)
	p.run(s, "2", true)
	first := p.info(s).Revisions[1] // [0] is the empty one
	s.Kept = []string{first, "9@2001-01-01T00:00:00Z"}
	for _, text := range []string{"3", "4", "5", "6"} {
		p.run(s, text, true)
	}
	if list := p.info(s).Revisions; len(list) != s.Revisions+1 || list[0] != first {
		t.Fatalf("with %s kept there are the revisions %v", first, list)
	}
	// A volume that keeps no others keeps that one, in place or not.
	s.Revisions = 0
	p.run(s, "7", true)
	if list := p.info(s).Revisions; !slices.Equal(list, []string{first}) {
		t.Fatalf("a volume that keeps no others has the revisions %v", list)
	}
	p.must(p.Revert(t.Context(), s, first))
	p.holds(s, "1")
	if list := p.info(s).Revisions; !slices.Equal(list, []string{first}) {
		t.Fatalf("after the revert to it there are the revisions %v", list)
	}
	// Let go, it ages as the others do.
	s.Kept = nil
	p.run(s, "8", true)
	if list := p.info(s).Revisions; len(list) != 0 {
		t.Fatalf("after it was let go there are the revisions %v", list)
	}
}

func testImport(t *testing.T, p *pool) {
	s := p.create(templateRoot())
	other := private()
	other.VID = "appvms/other/private"
	other.Size = 24 * mib
	p.create(other)
	p.run(other, "imported", true)
	image := filepath.Join(p.ImportDir(), "new.img")
	data, err := os.ReadFile(p.start(other).Base.Path)
	p.must(err)
	p.stop(other, false)
	p.must(os.WriteFile(image, data, 0o644))

	outside := filepath.Join(t.TempDir(), "outside.img")
	p.must(os.WriteFile(outside, data, 0o600))
	p.mustBe(p.Import(t.Context(), s, outside), storage.ErrBadVolume)
	p.mustBe(p.Import(t.Context(), s, filepath.Join(p.ImportDir(), "..", "x.img")), storage.ErrBadVolume)
	p.start(s)
	p.mustBe(p.Import(t.Context(), s, image), storage.ErrInUse)
	p.stop(s, false)

	p.must(p.Import(t.Context(), s, image))
	if _, err := os.Stat(image); err == nil {
		t.Error("the image is still in the import folder")
	}
	p.holds(s, "imported")
	if info := p.info(s); info.Size != 24*mib || len(info.Revisions) != 1 {
		t.Errorf("after the import: %+v", info)
	}
}

func testClone(t *testing.T, p *pool) {
	s := p.create(templateRoot())
	p.run(s, "committed", true)
	put(t, p.start(s).Base.Path, "running")
	dst := templateRoot()
	dst.VID = "vm-templates/copy/root"
	p.must(p.Clone(t.Context(), dst, s.VID))
	p.mustBe(p.Clone(t.Context(), dst, s.VID), storage.ErrExists)
	p.stop(s, true)
	p.holds(dst, "committed")
	p.run(dst, "changed", true)
	p.holds(s, "running")

	dst.VID = "vm-templates/third/root"
	p.mustBe(p.Clone(t.Context(), dst, "vm-templates/missing/root"), storage.ErrNotFound)
	snapshot := p.create(appRoot())
	p.mustBe(p.Clone(t.Context(), dst, snapshot.VID), storage.ErrBadVolume)
	if _, err := p.Info(t.Context(), dst); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("what failed left a volume: %v", err)
	}
}

func testExport(t *testing.T, p *pool) {
	s := p.create(templateRoot())
	p.run(s, "committed", true)
	put(t, p.start(s).Base.Path, "running")
	image := filepath.Join(p.ImportDir(), "export")
	p.must(p.Export(t.Context(), s, image))
	if got := get(t, image); got != "committed" {
		t.Errorf("the export of a running volume holds %q", got)
	}
	p.stop(s, true)
	dst := templateRoot()
	dst.VID = "vm-templates/copy/root"
	p.create(dst)
	p.must(p.Import(t.Context(), dst, image))
	p.holds(dst, "committed")

	inPlace := templateRoot()
	inPlace.VID, inPlace.Revisions = "vm-templates/place/root", 0
	p.create(inPlace)
	p.start(inPlace)
	p.mustBe(p.Export(t.Context(), inPlace, image), storage.ErrInUse)
	p.stop(inPlace, true)
	p.must(p.Export(t.Context(), inPlace, image))
	snapshot := p.create(appRoot())
	p.mustBe(p.Export(t.Context(), snapshot, image+"2"), storage.ErrBadVolume)
	dst.VID = "vm-templates/missing/root"
	p.mustBe(p.Export(t.Context(), dst, image+"2"), storage.ErrNotFound)
	if _, err := os.Stat(image + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what failed left a file: %v", err)
	}
}

func testClear(t *testing.T, p *pool) {
	s := p.create(templateRoot())
	p.run(s, "old", true)
	a := p.start(s)
	p.mustBe(p.Clear(t.Context(), s), storage.ErrInUse)
	if got := get(t, a.Base.Path); got != "old" {
		t.Errorf("a failed Clear left %q", got)
	}
	p.stop(s, true)
	p.must(p.Clear(t.Context(), s))
	p.holds(s, "")
	info := p.info(s)
	if info.Size != s.Size || len(info.Revisions) == 0 {
		t.Fatalf("%+v", info)
	}
	p.must(p.Revert(t.Context(), s, info.Revisions[len(info.Revisions)-1]))
	p.holds(s, "old")
	snapshot := p.create(appRoot())
	p.mustBe(p.Clear(t.Context(), snapshot), storage.ErrBadVolume)
	s.VID = "vm-templates/missing/root"
	p.mustBe(p.Clear(t.Context(), s), storage.ErrNotFound)
}

func testCloneCancelled(t *testing.T, p *pool) {
	s := p.create(templateRoot())
	before := p.files()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dst := templateRoot()
	dst.VID = "vm-templates/copy/root"
	if err := p.Clone(ctx, dst, s.VID); err == nil {
		// A reflink is done before anybody looks.
		p.must(p.Remove(t.Context(), dst))
	}
	if after := p.files(); !slices.Equal(before, after) {
		t.Errorf("the cancelled clone left %v, before there was %v", after, before)
	}
}

func testResize(t *testing.T, p *pool) {
	s := p.create(private())
	p.run(s, "kept", true)
	p.mustBe(p.Resize(t.Context(), s, s.Size-mib), storage.ErrBadVolume)
	p.must(p.Resize(t.Context(), s, 2*s.Size))
	if info := p.info(s); info.Size != 2*s.Size {
		t.Errorf("after growing: %+v", info)
	}
	image := p.start(s).Base.Path
	fsck(t, image)
	if !strings.Contains(debugfs(t, image, "show_super_stats -h"), "32768") { // blocks of 1024
		t.Error("the file system did not grow with the volume")
	}
	p.mustBe(p.Resize(t.Context(), s, 4*s.Size), storage.ErrInUse)
	p.stop(s, true)
	p.holds(s, "kept")
}

func testInUse(t *testing.T, p *pool) {
	for _, s := range []storage.Spec{p.create(templateRoot()), p.create(appRoot()), p.create(private()), p.create(volatile())} {
		p.start(s)
		_, err := p.Start(t.Context(), s)
		p.mustBe(err, storage.ErrInUse)
		p.mustBe(p.Remove(t.Context(), s), storage.ErrInUse)
		if !p.info(s).Running {
			t.Errorf("%s runs and is said not to", s.VID)
		}
		p.stop(s, true)
	}
	s := templateRoot()
	p.run(s, "x", true)
	p.start(s)
	p.mustBe(p.Revert(t.Context(), s, p.info(s).Revisions[0]), storage.ErrInUse)
	p.stop(s, false)
}

// What a crash left started goes on with what it held.
func testCrashKeepsOrigin(t *testing.T, p *pool) {
	for _, s := range []storage.Spec{templateRoot(), private()} {
		p.create(s)
		p.run(s, "committed", true)
		put(t, p.start(s).Base.Path, "at the crash")
		p.restart()
		if p.info(s).Running {
			t.Errorf("%s: after the crash it is said to run", s.VID)
		}
		if got := get(t, p.start(s).Base.Path); got != "at the crash" {
			t.Errorf("%s: after the crash it holds %q", s.VID, got)
		}
		p.stop(s, true)
		p.holds(s, "at the crash")
	}
}

// A restarted daemon finds the volumes of running qubes as they were.
func testRecoverRunning(t *testing.T, p *pool) {
	p.create(templateRoot())
	specs := []storage.Spec{p.create(appRoot()), p.create(private())}
	var vids []storage.VID
	var paths []string
	for _, s := range specs {
		a := p.start(s)
		paths = append(paths, a.Base.Path)
		if a.Overlay != nil {
			paths = append(paths, a.Overlay.Path)
		}
		vids = append(vids, s.VID)
	}
	p.restart(vids...)
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("taken from a running qube: %v", err)
		}
	}
	for _, s := range specs {
		if !p.info(s).Running {
			t.Errorf("%s is said not to run", s.VID)
		}
		_, err := p.Start(t.Context(), s)
		p.mustBe(err, storage.ErrInUse)
		p.stop(s, true)
	}
}

func testRecoverCleans(t *testing.T, p *pool) {
	p.create(templateRoot())
	p.create(appRoot())
	p.create(volatile())
	before := p.files()
	p.start(appRoot())
	p.start(volatile())
	p.must(os.WriteFile(filepath.Join(p.ImportDir(), "half.img"), []byte("x"), 0o600))
	p.restart()
	if after := p.files(); !slices.Equal(before, after) {
		t.Errorf("after Recover there is %v, before the start there was %v", after, before)
	}
	p.start(appRoot())
	p.stop(appRoot(), false)
}

func testUsage(t *testing.T, p *pool) {
	s := p.create(private())
	size, used, err := p.Usage(t.Context())
	if err != nil || size <= 0 || used <= 0 || used > size {
		t.Errorf("Usage() = %d, %d, %v", size, used, err)
	}
	before := p.info(s).Usage
	if before >= s.Size {
		t.Errorf("an empty volume takes %d of %d bytes", before, s.Size)
	}
	p.run(s, strings.Repeat("x", 4*mib), true)
	if grown := p.info(s).Usage - before; grown < 3*mib || grown > 6*mib {
		t.Errorf("after 4 MiB the usage grew by %d bytes", grown)
	}
}
