package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/engine/sandbox"
	"cubicle/daemon/paths"
	"cubicle/guid/screen"
)

// soak uses a desktop by a script while its daemons are killed at random
// instants. Then it compares the desktop with what the script was promised,
// and looks for remains. The environment says more:
//
//	CUBICLE_SOAK_KILLS   how many kills (15)
//	CUBICLE_SOAK_SEED    the seed of a run to repeat
//	CUBICLE_SOAK_ENGINE  the engine (crun)
func soak(t *testing.T, bin, root string) {
	kills := number(t, "CUBICLE_SOAK_KILLS", 15)
	seed := number(t, "CUBICLE_SOAK_SEED", int(time.Now().UnixNano()&0xffffff))
	engine := os.Getenv("CUBICLE_SOAK_ENGINE")
	if engine == "" {
		engine = "crun"
	}
	t.Logf("CUBICLE_SOAK_SEED=%d CUBICLE_SOAK_KILLS=%d CUBICLE_SOAK_ENGINE=%s", seed, kills, engine)
	before := traces(t, root)
	begun := time.Now()
	d := start(t, bin, root, engine)
	boot := d.inQube(t, "work", "stat -c %Y /proc/1")
	manager := d.pidOf(t, "qube-manager")

	stop := make(chan struct{})
	var users sync.WaitGroup
	var scripts []*script
	for i := range 2 {
		s := &script{d: d, t: t, owner: string(rune('a' + i)), rand: rand.New(rand.NewPCG(uint64(seed), uint64(i))),
			qubes: map[string]*promised{}, did: map[string]int{}, stop: stop}
		scripts = append(scripts, s)
		users.Go(s.run)
	}
	typed := 0
	users.Go(func() { typed = d.typeOn(t, stop) })
	killed := killDaemons(t, d, rand.New(rand.NewPCG(uint64(seed), 100)), kills)
	close(stop)
	users.Wait()
	did := map[string]int{}
	for _, s := range scripts {
		for what, n := range s.did {
			did[what] += n
		}
	}
	t.Logf("killed %v; acknowledged %v; typed %d lines", killed, did, typed)
	if typed == 0 {
		t.Error("nothing could be typed")
	}

	// The daemons are back, and know what they knew.
	eventually(t, func() string {
		if _, _, err := d.tool("qvm-ls"); err != nil {
			return err.Error()
		}
		return ""
	})
	if now := d.inQube(t, "work", "stat -c %Y /proc/1"); now != boot {
		t.Errorf("work was started anew")
	}
	if now := d.pidOf(t, "qube-manager"); now != manager {
		t.Errorf("the Manager was started anew")
	}
	for _, s := range scripts {
		s.verify(t)
	}
	d.verifyWindow(t)
	d.verifyRemains(t, begun)
	if !t.Failed() {
		d.down(t)
		for trace := range traces(t, root) {
			if group, ok := strings.CutPrefix(trace, "control group "); ok && !deserted(group, begun) {
				continue // of another desktop
			}
			if !before[trace] {
				t.Errorf("left behind: %s", trace)
			}
		}
	}
}

func number(t *testing.T, env string, otherwise int) int {
	t.Helper()
	text := os.Getenv(env)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", env, err)
	}
	return n
}

// killDaemons kills one daemon after the other with SIGKILL, at instants that
// r chooses, also while they start. It tells how often it killed which.
func killDaemons(t *testing.T, d *desktop, r *rand.Rand, kills int) map[string]int {
	killed := map[string]int{}
	daemons := []string{"qubesd", "qubesd", "qrexecd", "qubes-guid", "guid of a qube"}
	for n, last := 0, time.Now(); n < kills; {
		time.Sleep(time.Duration(r.IntN(1200)) * time.Millisecond)
		name := daemons[r.IntN(len(daemons))]
		pids := d.pids(t, name)
		if name == "guid of a qube" {
			pids = d.qubeGUIDs(t)
		}
		if len(pids) == 0 {
			if time.Since(last) > patience {
				t.Fatalf("%s does not come back", name)
			}
			continue // it is just starting again
		}
		// A pid that ended meanwhile is as good as killed.
		if err := syscall.Kill(pids[r.IntN(len(pids))], syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
		killed[name]++
		n, last = n+1, time.Now()
	}
	return killed
}

// qubeGUIDs lists the processes that draw for one qube each.
func (d *desktop) qubeGUIDs(t *testing.T) []int {
	var found []int
	supervisors := d.pids(t, "qubes-guid")
	for _, dir := range glob(t, "/proc/[0-9]*") {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !strings.Contains(string(line), "\x00--qube-process") {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		parent, err := strconv.Atoi(fields[1])
		if err == nil && slices.Contains(supervisors, parent) {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, pid)
		}
	}
	return found
}

// choice is what a value may be: one value once a change of it was
// acknowledged, more after a change whose outcome is not known.
type choice map[string]bool

func only(value string) choice { return choice{value: true} }

func (c choice) String() string { return strings.Join(slices.Sorted(maps.Keys(c)), " or ") }

// promised is what the script knows of a qube of its own.
type promised struct {
	exists  choice // "yes", "no"
	label   choice
	memory  choice
	feature choice
	private choice // bytes
	note    choice // content of a file in its home
}

func (p *promised) clone() *promised {
	return &promised{maps.Clone(p.exists), maps.Clone(p.label), maps.Clone(p.memory), maps.Clone(p.feature), maps.Clone(p.private), maps.Clone(p.note)}
}

// script uses qubes of its own, and keeps a ledger of what it was promised.
type script struct {
	d     *desktop
	t     *testing.T
	owner string
	rand  *rand.Rand
	qubes map[string]*promised
	did   map[string]int
	made  int
	stop  chan struct{}
}

const defaultPrivate = "2147483648"

func (s *script) run() {
	for {
		select {
		case <-s.stop:
			return
		default:
		}
		s.step()
	}
}

// step does one thing. Whatever fails may have happened or not.
func (s *script) step() {
	names := slices.Sorted(maps.Keys(s.qubes))
	if len(names) < 2 {
		s.create()
		return
	}
	name := names[s.rand.IntN(len(names))]
	q := s.qubes[name]
	switch s.rand.IntN(11) {
	case 0:
		if len(names) < 4 {
			s.create()
		}
	case 1:
		s.change(&q.label, []string{"red", "green", "yellow"}[s.rand.IntN(3)], func(v string) error { return s.tool("label", "qvm-prefs", name, "label", v) })
	case 2:
		s.change(&q.memory, strconv.Itoa(300+s.rand.IntN(100)), func(v string) error { return s.tool("memory", "qvm-prefs", name, "memory", v) })
	case 3:
		s.change(&q.feature, strconv.Itoa(s.rand.IntN(1000)), func(v string) error { return s.tool("feature", "qvm-features", name, "soak", v) })
	case 4:
		_ = s.tool("start", "qvm-start", "--skip-if-running", name)
	case 5, 6:
		s.change(&q.note, strconv.Itoa(s.rand.IntN(1000000)), func(v string) error {
			return s.tool("note", "qvm-run", "--pass-io", name, "echo "+v+" > ~/note && sync ~/note ~")
		})
	case 7:
		_ = s.tool("shutdown", "qvm-shutdown", "--wait", name)
	case 8:
		_ = s.tool("kill", "qvm-kill", name)
	case 9:
		if len(q.private) == 1 && s.tool("shutdown", "qvm-shutdown", "--wait", name) == nil {
			size, _ := strconv.Atoi(q.private.String())
			s.change(&q.private, strconv.Itoa(size+(1+s.rand.IntN(8))<<20), func(v string) error {
				return s.tool("resize", "qvm-volume", "resize", name+":private", v)
			})
		}
	case 10:
		if s.rand.IntN(2) == 0 && len(names) < 4 {
			s.clone(name)
			return
		}
		// It may have ended already; then removing it succeeds.
		_ = s.tool("kill", "qvm-kill", name)
		s.change(&q.exists, "no", func(string) error { return s.tool("remove", "qvm-remove", "--force", name) })
		s.settle(name)
	}
}

// change does something that makes a value v.
func (s *script) change(c *choice, v string, do func(string) error) {
	if do(v) == nil {
		*c = only(v)
		return
	}
	(*c)[v] = true
}

// tool runs a tool and counts what was acknowledged.
func (s *script) tool(what, name string, args ...string) error {
	_, _, err := s.d.tool(name, args...)
	if err == nil {
		s.did[what]++
		return nil
	}
	s.did["not "+what]++
	time.Sleep(50 * time.Millisecond)
	return err
}

func (s *script) newName() string {
	s.made++
	return fmt.Sprintf("soak-%s%d", s.owner, s.made)
}

func (s *script) create() {
	name := s.newName()
	q := &promised{only("no"), only("red"), only("-"), only("-"), only(defaultPrivate), only("-")}
	s.qubes[name] = q
	s.change(&q.exists, "yes", func(string) error { return s.tool("create", "qvm-create", "--label", "red", name) })
	s.settle(name)
}

func (s *script) clone(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Connect(ctx, client.Address(paths.Root(s.d.root)))
	if err != nil {
		s.t.Errorf("the bus: %v", err)
		return
	}
	defer c.Close()
	copied := s.newName()
	q := s.qubes[name].clone()
	q.exists = only("no")
	// A running qube is copied as it was when it was last halted.
	_ = s.tool("shutdown", "qvm-shutdown", "--wait", name)
	if state, _, err := s.d.tool("qvm-ls", "--raw-data", "--fields", "state", name); err != nil || strings.TrimSpace(state) != "Halted" {
		return
	}
	s.qubes[copied] = q
	s.change(&q.exists, "yes", func(string) error {
		snapshot, err := c.Snapshot(ctx)
		if err != nil {
			return err
		}
		for uuid, found := range snapshot.Qubes {
			if found.Name != name {
				continue
			}
			job, err := c.Clone(ctx, uuid, copied)
			if err == nil {
				_, err = c.Wait(ctx, job)
			}
			if err == nil {
				s.did["clone"]++
			}
			return err
		}
		return errors.New("not there")
	})
	s.settle(copied)
}

// settle finds out whether a qube exists where that is not known, and forgets
// one that does not.
func (s *script) settle(name string) {
	q := s.qubes[name]
	if len(q.exists) == 1 && q.exists["no"] {
		delete(s.qubes, name)
		return
	}
	if len(q.exists) == 1 {
		return
	}
	// A job goes on when its caller is gone, and one that was killed is
	// undone when the daemon starts: wait for one or the other.
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		out, _, err := s.d.tool("qvm-ls", "--raw-data", "--fields", "name,state")
		if err != nil {
			continue
		}
		state := ""
		for line := range strings.Lines(out) {
			if n, st, _ := strings.Cut(strings.TrimSpace(line), "|"); n == name {
				state = st
			}
		}
		switch {
		case state == "" && s.quiet(name):
			delete(s.qubes, name)
			return
		case state != "" && state != "NA":
			q.exists = only("yes")
			return
		}
	}
	s.t.Errorf("%s stays half-done", name)
}

// quiet tells whether no job of a qube is under way.
func (s *script) quiet(name string) bool {
	_, err := os.Stat(filepath.Join(s.d.root, "var/lib/qubes/appvms", name))
	return errors.Is(err, fs.ErrNotExist)
}

// verify compares what there is with what was promised.
func (s *script) verify(t *testing.T) {
	out, _, err := s.d.tool("qvm-ls", "--raw-list")
	if err != nil {
		t.Fatal(err)
	}
	there := strings.Fields(out)
	for _, name := range there {
		if strings.HasPrefix(name, "soak-"+s.owner) && s.qubes[name] == nil {
			t.Errorf("%s is there and should not be", name)
		}
	}
	for name, q := range s.qubes {
		if !slices.Contains(there, name) {
			t.Errorf("%s is gone", name)
			continue
		}
		compare := func(what string, want choice, tool string, args ...string) {
			t.Helper()
			got, _, err := s.d.tool(tool, args...)
			if got = strings.TrimSpace(got); err != nil || !want[got] {
				t.Errorf("%s of %s is %q (%v), not %s", what, name, got, err, want)
			}
		}
		compare("label", q.label, "qvm-prefs", name, "label")
		if !q.memory["-"] {
			compare("memory", q.memory, "qvm-prefs", name, "memory")
		}
		if !q.feature["-"] {
			compare("feature", q.feature, "qvm-features", name, "soak")
		}
		compare("private", q.private, "qvm-volume", "info", name+":private", "size")
		compare("note", q.note, "qvm-run", "--pass-io", name, "cat ~/note 2>/dev/null || echo -")
	}
}

// typeOn types line after line into a window of work until stop, and tells how
// many arrived. While its guid is away, a window takes no keys: a line is then
// typed again.
func (d *desktop) typeOn(t *testing.T, stop <-chan struct{}) (arrived int) {
	ended := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	for begun := time.Now(); !ended(); time.Sleep(200 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Errorf("line %d is typed in vain", arrived+1)
			return arrived
		}
		windows, err := d.screen.Windows()
		i := slices.IndexFunc(windows, func(w screen.Window) bool { return w.Qube == "work" && strings.Contains(w.Class, "XTerm") })
		if err != nil || i < 0 {
			continue
		}
		d.message(t, windows[i].ID, "_NET_ACTIVE_WINDOW", 2)
		if focus, err := d.x.InputFocus(); err != nil || focus != windows[i].ID {
			continue
		}
		line := strconv.Itoa(arrived + 1)
		d.typeText(t, "\necho "+line+" > /tmp/typed\n")
		for look := time.Now(); time.Since(look) < 3*time.Second && !ended(); time.Sleep(50 * time.Millisecond) {
			out, _, err := d.tool("qvm-run", "--pass-io", "work", "cat /tmp/typed")
			if err == nil && strings.TrimSpace(out) == line {
				arrived, begun = arrived+1, time.Now()
				break
			}
		}
	}
	return arrived
}

// verifyWindow types into a window that was there from the beginning.
func (d *desktop) verifyWindow(t *testing.T) {
	t.Helper()
	eventually(t, func() string {
		w := d.find(t, "work", "XTerm")
		if drawn, err := d.screen.IsDrawn(w); err != nil || !drawn {
			return fmt.Sprintf("the window is not drawn (%v)", err)
		}
		return ""
	})
	d.raise(t, d.find(t, "work", "XTerm"))
	d.typeText(t, "\necho Soaked-$((6*7)) > /tmp/soaked\n")
	eventually(t, func() string {
		if got := d.inQube(t, "work", "cat /tmp/soaked 2>/dev/null; true"); got != "Soaked-42" {
			return fmt.Sprintf("what was typed arrived as %q", got)
		}
		return ""
	})
}

// verifyRemains looks for what no running qube and no qube at all owns.
func (d *desktop) verifyRemains(t *testing.T, begun time.Time) {
	t.Helper()
	eventually(t, func() string {
		remains, err := d.remains(begun)
		if err != nil {
			return err.Error()
		}
		return strings.Join(remains, "\n")
	})
}

// deserted tells whether a control group that was made since begun is there
// without a process in it or below. Others may belong to other desktops on
// this machine.
func deserted(group string, begun time.Time) bool {
	if info, err := os.Stat(group); err != nil || info.ModTime().Before(begun) {
		return false
	}
	empty := true
	_ = filepath.WalkDir(group, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil // gone meanwhile
		}
		procs, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		empty = empty && (err != nil || len(procs) == 0)
		return nil
	})
	return empty
}

// remains lists what belongs to no qube, and what is half-done.
func (d *desktop) remains(begun time.Time) ([]string, error) {
	out, _, err := d.tool("qvm-ls", "--raw-data", "--fields", "name,uuid,xid,state,class")
	if err != nil {
		return nil, err
	}
	folders, uuids, running, domains := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), "|")
		name, uuid, xid, state, class := f[0], f[1], f[2], f[3], f[4]
		if class == "AdminVM" {
			continue
		}
		folders[map[string]string{"TemplateVM": "vm-templates"}[class]+"/"+name] = true
		folders["appvms/"+name] = class == "AppVM"
		uuids[uuid] = true
		if state != "Halted" {
			running[uuid], domains[xid] = true, true
		}
		if state != "Halted" && state != "Running" {
			return []string{name + " is " + state}, nil
		}
	}
	sockets := map[string]bool{}
	for domain := range domains {
		sockets["qrexec."+domain] = true
	}
	var found []string
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	state := filepath.Join(d.root, "var/lib/qubes")
	err = filepath.WalkDir(state, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(state, path)
		parts := strings.Split(rel, "/")
		base := filepath.Base(path)
		switch {
		case strings.HasSuffix(base, "~") || strings.HasPrefix(base, ".") && rel != "." && rel != ".import" || strings.HasPrefix(rel, ".import/"):
			add("half-made: %s", rel)
		case len(parts) == 2 && (parts[0] == "appvms" || parts[0] == "vm-templates") && !folders[rel]:
			add("folder of no qube: %s", rel)
		case base == "qube.toml":
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if strings.Contains(string(text), "pending") {
				add("pending: %s", rel)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, place := range []struct {
		pattern, suffix string
		owners          map[string]bool
	}{
		{filepath.Join(d.root, "run/qubes/runs/*-*"), ".json", running},
		{filepath.Join(d.root, "run/qubes/machines/*"), "", running},
		{filepath.Join(paths.Root(d.root).Links(), "*"), "", domains},
		{filepath.Join(d.root, "run/qubes/qrexec.3????"), "", sockets},
		{"/sys/fs/cgroup/*/cubicle*/*-*", "", nil},
		{filepath.Join(paths.Root(d.root).Vchan(), "vchan.*"), "", map[string]bool{}}, // a call has one while it begins
		{filepath.Join(d.root, "run/probe-*"), "", nil},
	} {
		names, err := filepath.Glob(place.pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			id := strings.TrimSuffix(filepath.Base(name), place.suffix)
			switch {
			case place.owners != nil && !place.owners[id]:
				add("of no running qube: %s", name)
			case strings.Contains(name, "/cgroup/") && !running[id] && deserted(name, begun):
				add("control group of nobody: %s", name)
			case strings.Contains(name, "/run/probe-"):
				add("a probe's folder: %s", name)
			}
		}
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	for _, name := range backing {
		if file, err := os.ReadFile(name); err == nil && strings.Contains(string(file), d.root) && strings.Contains(string(file), "(deleted)") &&
			!strings.Contains(string(file), "root-base.img") { // others may stand on a template's image that one stopped qube has attached
			add("loop device of a deleted file: %s", strings.TrimSpace(string(file)))
		}
	}
	table, err := os.ReadFile(sandbox.DefaultRanges)
	if err != nil {
		return nil, err
	}
	var ranges []struct{ Root, UUID string }
	if err := json.Unmarshal(table, &ranges); err != nil {
		return nil, err
	}
	for _, r := range ranges {
		if strings.HasPrefix(r.Root, d.root) && !uuids[r.UUID] {
			add("range of user ids of nobody: %s %s", r.Root, r.UUID)
		}
	}
	return found, nil
}
