package admin

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cubicle/daemon/admin/client"
	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/engine"
	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/storage/file"
	"cubicle/daemon/store"
)

// record follows the events of a qube, or with dom0 of all.
func record(t *testing.T, path, dest string) *client.Stream {
	t.Helper()
	c := &client.Client{Socket: path}
	s, err := c.Events(t.Context(), dest, "admin.Events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// until reads events up to the one of that name, and returns all as text.
func until(t *testing.T, s *client.Stream, name string) []string {
	t.Helper()
	var list []string
	for {
		e, err := s.Next()
		if err != nil {
			t.Fatalf("%v after %q", err, list)
		}
		var args []string
		for k, v := range e.Args {
			args = append(args, k+"="+v)
		}
		slices.Sort(args)
		list = append(list, strings.TrimSpace(e.Subject+" "+e.Name+" "+strings.Join(args, " ")))
		if e.Name == name {
			return list
		}
	}
}

// What the methods of volumes, pools, devices and the firewall tell, by
// upstream's names (spec/admin-api.md §7).
func TestEventsOfWhatIsDone(t *testing.T) {
	_, path := serve(t, Public)
	all, work, other := record(t, path, "dom0"), record(t, path, "work"), record(t, path, "debian-12")
	ask := func(request string) {
		t.Helper()
		if got := string(exchange(t, path, []byte(request))); !strings.HasPrefix(got, "0\x00") {
			t.Fatalf("%q: %q", request, got)
		}
	}
	ask("admin.vm.firewall.Set dom0 name work\x00action=drop")
	ask("admin.vm.firewall.Reload dom0 name work\x00")
	ask("admin.vm.device.usb.Assign+debian-12+1-2 dom0 name work\x00mode='auto-attach'")
	ask("admin.vm.device.usb.Set.assignment+debian-12+1-2 dom0 name work\x00required")
	ask("admin.vm.device.usb.Unassign+debian-12+1-2 dom0 name work\x00")
	ask("admin.vm.volume.ImportWithSize+private dom0 name work\x003\nabc")
	ask("admin.pool.Add+test dom0 name dom0\x00name=fast\ndir_path=/x")
	ask("admin.pool.Remove+fast dom0 name dom0\x00")
	ask("admin.vm.tag.Set+end dom0 name debian-12\x00")
	ask("admin.vm.tag.Set+end dom0 name work\x00")
	ofWork := []string{
		"work firewall-changed",
		"work firewall-changed",
		"work device-pre-assign:usb device=debian-12:1-2:* options={}",
		"work device-assign:usb device=debian-12:1-2:* options={}",
		"work device-assignment-changed:usb device=debian-12:1-2:*",
		"work device-unassign:usb device=debian-12:1-2:*",
		"work domain-volume-import-begin size=3 volume=private",
		"work domain-volume-import-end success=True volume=private",
	}
	endOfWork, endOfOther := "work domain-tag-add:end tag=end", "debian-12 domain-tag-add:end tag=end"
	for name, c := range map[string]struct {
		from *client.Stream
		want []string
	}{
		"work":      {work, append(slices.Clone(ofWork), endOfWork)},
		"debian-12": {other, []string{endOfOther}},
		"dom0":      {all, append(slices.Clone(ofWork), "pool-add pool=fast", "pool-pre-delete pool=fast", "pool-delete pool=fast", endOfOther)},
	} {
		if got := until(t, c.from, "domain-tag-add:end"); !slices.Equal(got, c.want) {
			t.Errorf("%s hears\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

// hides keeps one qube from everybody.
type hides struct{ name qube.Name }

func (h hides) Allows(q Question) bool { return !q.Known || q.Dest.Name() != h.name }

func TestThePolicyFiltersListsAndEvents(t *testing.T) {
	sys, path, _ := serveAs(t, Public, func(s *Server) { s.Policy = hides{"work"} })
	all := record(t, path, "dom0")
	if err := sys.SetTag(mustFind(t, sys, "work"), "secret"); err != nil {
		t.Fatal(err)
	}
	if err := sys.SetTag(mustFind(t, sys, "debian-12"), "plain"); err != nil {
		t.Fatal(err)
	}
	if got := until(t, all, "domain-tag-add:plain"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if got := string(exchange(t, path, []byte("admin.vm.List dom0 name dom0\x00"))); strings.Contains(got, "work") || !strings.Contains(got, "debian-12") {
		t.Errorf("%q", got)
	}
	if got := string(exchange(t, path, []byte("cubicle.vm.List dom0 name dom0\x00tags"))); strings.Contains(got, "work") || !strings.Contains(got, "debian-12") {
		t.Errorf("%q", got)
	}
	if got := string(exchange(t, path, []byte("admin.vm.Start dom0 name work\x00"))); got != "2\x00PermissionDenied\x00\x00dom0 may not call admin.vm.Start\x00" {
		t.Errorf("%q", got)
	}
}

func TestStats(t *testing.T) {
	sys, path := serve(t, Public)
	if err := sys.SetSystemProperty("stats_interval", "1"); err != nil {
		t.Fatal(err)
	}
	if err := sys.Done(sys.Start(mustFind(t, sys, "work"))); err != nil {
		t.Fatal(err)
	}
	c := &client.Client{Socket: path}
	s, err := c.Events(t.Context(), "dom0", "admin.vm.Stats")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		e, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		// dom0 has what of this computer is no qube's.
		if total, err := strconv.ParseInt(e.Args["memory_assigned_total"], 10, 64); err != nil || e.Name != "vm-stats" || e.Subject != "dom0" || total < 409600 {
			t.Errorf("%+v", e)
		}
		if e, err = s.Next(); err != nil {
			t.Fatal(err)
		}
		if e.Name != "vm-stats" || e.Subject != "work" || e.Args["memory_kb"] != "409600" || e.Args["memory_with_swap_used"] != "102400" ||
			e.Args["cpu_time"] != "1000" || e.Args["cpu_usage"] != "0" || e.Args["online_vcpus"] != "2" {
			t.Errorf("%+v", e)
		}
	}
}

// onDisk is a system whose volumes are files.
func onDisk(t *testing.T) (c *core.Core, public, internal string) {
	t.Helper()
	dir, w := t.TempDir(), coretest.New()
	st, err := store.Open(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	var folders file.Folders
	pool, err := file.New("varlibqubes", filepath.Join(dir, "state"))
	if err == nil {
		err = folders.Add(pool)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := w.NewRouter()
	c, err = core.Open(t.Context(), core.Config{
		Store: st, Pools: []storage.Pool{pool}, Drivers: []storage.Driver{folders.Driver()}, Engines: []engine.Engine{w.NewEngine("test", r)},
		Router: r, Caller: w, Builder: w, Clock: core.WallClock{}, Log: quiet(),
		Links: filepath.Join(dir, "links"), Runs: filepath.Join(dir, "runs"), AgentDir: dir, QrexecUID: os.Geteuid(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, serveCore(t, c, Public), serveCore(t, c, Internal)
}

// Contents go into a volume, from volume to volume and from pool to pool, and
// come back, on real files.
func TestContentsOfVolumes(t *testing.T) {
	c, public, internal := onDisk(t)
	ask := func(path, request string) string {
		t.Helper()
		got, ok := strings.CutPrefix(string(exchange(t, path, []byte(request))), "0\x00")
		if !ok {
			t.Fatalf("%.80q: %q", request, got)
		}
		return got
	}
	holds := func(name, want string) {
		t.Helper()
		q, ok := c.View().Named(qube.Name(name))
		if !ok {
			t.Fatalf("there is no %s", name)
		}
		v, _ := q.Volume("private")
		info, err := c.PoolInfo(context.Background(), v.Pool)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(filepath.Join(info.Options["dir_path"], string(v.Spec.VID)+".img"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got, err := bufio.NewReader(f).Peek(len(want))
		if string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", name, got, err, want)
		}
	}
	size := 16 << 20
	contents := func(text string) string { return text + strings.Repeat("\x00", size-len(text)) }

	ask(public, "admin.vm.Create.TemplateVM dom0 name dom0\x00name=debian label=black")
	ask(public, "admin.pool.Add+file dom0 name dom0\x00name=second\ndir_path="+filepath.Join(t.TempDir(), "pool"))
	ask(public, "admin.vm.Create.AppVM+debian dom0 name dom0\x00name=one label=red")
	ask(public, "admin.vm.CreateInPool.AppVM+debian dom0 name dom0\x00name=two label=red pool:private=second")

	ask(public, fmt.Sprintf("admin.vm.volume.ImportWithSize+private dom0 name one\x00%d\n%s", size, contents("first")))
	holds("one", "first")
	token := ask(public, "admin.vm.volume.CloneFrom+private dom0 name one\x00")
	ask(public, "admin.vm.volume.CloneTo+private dom0 name two\x00"+token)
	holds("two", "first")

	reply := ask(internal, "internal.vm.volume.ImportBegin+private dom0 name one\x00")
	bytes, path, _ := strings.Cut(reply, " ")
	if bytes != strconv.Itoa(size) {
		t.Fatalf("%q", reply)
	}
	if err := os.WriteFile(path, []byte(contents("second")), 0o600); err != nil {
		t.Fatal(err)
	}
	ask(internal, "internal.vm.volume.ImportEnd+private dom0 name one\x00ok")
	holds("one", "second")
	holds("two", "first")

	// Through the client: by the file, and in the request.
	byFile := &client.Client{Socket: public, Internal: internal}
	inRequest := &client.Client{Socket: public}
	if err := byFile.ImportVolume(t.Context(), "two", "private", -1, strings.NewReader(contents("by file"))); err != nil {
		t.Error(err)
	}
	holds("two", "by file")
	if err := inRequest.ImportVolume(t.Context(), "two", "private", int64(size), strings.NewReader(contents("first"))); err != nil {
		t.Error(err)
	}
	holds("two", "first")
	for size, data := range map[int64]string{-1: "short", 3: "long"} {
		if err := inRequest.ImportVolume(t.Context(), "two", "private", size, strings.NewReader(data)); !client.Is(err, "QubesException") {
			t.Errorf("%q as %d bytes: %v", data, size, err)
		}
	}
	if err := inRequest.ImportVolume(t.Context(), "two", "root", -1, strings.NewReader(contents(""))); !client.Is(err, "StoragePoolException") {
		t.Errorf("a refused import of a large volume: %v", err)
	}

	revisions := strings.Fields(ask(public, "admin.vm.volume.ListSnapshots+private dom0 name one\x00"))
	if len(revisions) != 1 {
		t.Fatalf("%q", revisions)
	}
	ask(public, "admin.vm.volume.Revert+private dom0 name one\x00"+revisions[0])
	holds("one", "first")

	// What was imported is never mounted by dom0's kernel, until it is gone.
	if q, _ := c.View().Named("two"); !foreign(q) {
		t.Error("a copy of what was imported passes for dom0's own")
	}
	ask(public, "admin.vm.volume.Clear+private dom0 name two\x00")
	holds("two", "\x00\x00\x00\x00\x00")
	if q, _ := c.View().Named("two"); foreign(q) {
		t.Error("a cleared volume passes for an import")
	}
	old := strings.Fields(ask(public, "admin.vm.volume.ListSnapshots+private dom0 name two\x00"))
	ask(public, "admin.vm.volume.Revert+private dom0 name two\x00"+old[len(old)-1])
	if q, _ := c.View().Named("two"); !foreign(q) {
		t.Error("an older state that was imported passes for dom0's own")
	}
	if got := string(exchange(t, public, []byte("admin.pool.Remove+second dom0 name dom0\x00"))); !strings.HasPrefix(got, "2\x00QubesPoolInUseError\x00") {
		t.Errorf("%q", got)
	}
	ask(public, "admin.vm.Remove dom0 name two\x00")
	ask(public, "admin.pool.Remove+second dom0 name dom0\x00")
}

func foreign(q core.Qube) bool {
	v, _ := q.Volume("private")
	return v.Spec.Foreign
}
