package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/core/devices"
	"cubicle/daemon/device"
	"cubicle/daemon/device/host"
	"cubicle/daemon/engine"
	"cubicle/daemon/policy"
	"cubicle/daemon/qube"
)

// What changes from run to run, or from machine to machine.
var varying = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`start_time default=True type=str [0-9.]+`), "start_time default=True type=str TIME"},
	{regexp.MustCompile(`\b[A-Z2-7]{32}\b`), "TOKEN"},
	{regexp.MustCompile(`/\S+/import-[0-9]+`), "PATH"},
	{regexp.MustCompile(`/\S+/policy\.d`), "policy.d"},
	{regexp.MustCompile(`\bdisp[0-9]+`), "dispN"},
	{regexp.MustCompile(`\b20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9:]{8}\b`), "TIME"},
	{regexp.MustCompile(`mem=[0-9]+ mem_static_max=[0-9]{7,} cputime=[0-9]+`), "mem=N mem_static_max=N cputime=N"},
	{regexp.MustCompile(`\b(maxmem|no_cpus) default=True type=int [0-9]+`), "$1 default=True type=int N"},
}

// golden is a file of requests and what is replied to them; \x00 stands for
// a zero byte, and a line's end in the file is one on the wire only where the
// wire has one, written \n. $LAST in a request is the text of the last reply. A
// section named "do COMMAND" changes the world, see do.
type golden struct {
	t       *testing.T
	sys     *coretest.System
	path    string
	last    string
	entries map[string]string // in the databases of qubes
}

func TestWireIsUpstreams(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	asked := map[Surface]map[string]bool{Public: {}, Internal: {}, Misc: {}}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { play(t, file, asked[surfaceOf(file)]) })
	}
	for surface, methods := range asked {
		for _, name := range slices.Sorted(maps.Keys(table(surface))) {
			if !methods[name] && !*update {
				t.Errorf("no request in testdata calls %s", name)
			}
		}
	}
}

func surfaceOf(file string) Surface {
	switch {
	case strings.Contains(file, "internal"):
		return Internal
	case strings.Contains(file, "misc"):
		return Misc
	}
	return Public
}

// streaming are the methods that answer with events until the client goes.
var streaming = []string{"admin.Events", "admin.vm.Stats", "cubicle.job.Events"}

func play(t *testing.T, file string, asked map[string]bool) {
	g := &golden{t: t, entries: map[string]string{}}
	g.sys, g.path, _ = serveAs(t, surfaceOf(file), func(s *Server) {
		s.PolicyFiles = policyFolder(t)
		s.Database = func(context.Context, core.Qube, string) (map[string]string, error) {
			if len(g.entries) == 0 {
				return nil, errors.New("the database is gone")
			}
			return maps.Clone(g.entries), nil
		}
		host := func(c device.Class) ([]device.Info, error) {
			return host.System{}.Devices(c) // no more than every machine has
		}
		s.Devices = devices.New(s.core, devices.Sources{Database: s.Database, Host: host}, quiet()).Refresh
	})
	for _, name := range streaming {
		asked[name] = true // by tests of their own
	}
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(archive.Files); i++ {
		request := &archive.Files[i]
		if command, ok := strings.CutPrefix(request.Name, "do "); ok {
			g.do(command)
			continue
		}
		if i++; i == len(archive.Files) || archive.Files[i].Name != "reply" {
			t.Fatalf("%s has no reply", request.Name)
		}
		reply := &archive.Files[i]
		raw := strings.NewReplacer(`\x00`, "\x00", `\n`, "\n", "\n", "", "$LAST", g.last).Replace(string(request.Data))
		name, _, _ := strings.Cut(raw, " ")
		name, _, _ = strings.Cut(name, "+")
		asked[name] = true
		got := string(exchange(t, g.path, []byte(raw)))
		g.last = strings.TrimSuffix(strings.TrimPrefix(got, "0\x00"), "\n")
		for _, v := range varying {
			got = v.pattern.ReplaceAllString(got, v.name)
		}
		got = strings.NewReplacer("\x00", `\x00`, "\n", "\\n\n").Replace(got)
		if !strings.HasSuffix(got, "\n") {
			got += "\n"
		}
		if *update {
			reply.Data = []byte(got)
		}
		if d := cmp.Diff(string(reply.Data), got); d != "" {
			t.Errorf("%s:\n%s", request.Name, d)
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// policyFolder is a policy of which nothing stands yet.
func policyFolder(t *testing.T) policy.Dirs {
	dirs := policy.Dirs{Policy: []string{filepath.Join(t.TempDir(), "policy.d")}}
	if err := os.MkdirAll(filepath.Join(dirs.Policy[0], "include"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dirs
}

// do changes the world:
//
//	write TEXT      write to the file that the last reply names
//	entry KEY=TEXT  an entry in the database of every qube
//	forget          no entry any more
//	fail OP VID     that operation of the pool fails from now on
//	lack WHAT       machines get no memory, or do not hear (ears), or nothing
//	start QUBE      starts it
//	has QUBE F=V    fails the test unless the qube has the feature
//	lacks QUBE F    fails the test if it has
func (g *golden) do(command string) {
	word, rest, _ := strings.Cut(command, " ")
	switch word {
	case "write":
		_, path, _ := strings.Cut(g.last, " ")
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(rest)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			g.t.Fatal(err)
		}
	case "entry":
		key, value, _ := strings.Cut(rest, "=")
		g.entries[key] = value
	case "forget":
		clear(g.entries)
	case "fail":
		g.sys.World.Set(func(w *coretest.World) { w.FailPool[rest] = errors.New("the disk is on fire") })
	case "lack":
		g.sys.World.Set(func(w *coretest.World) {
			w.FailPrepare, w.Deaf = nil, rest == "ears"
			if rest == "memory" {
				w.FailPrepare = engine.ErrNoMemory
			}
		})
	case "start":
		if err := g.sys.Done(g.sys.Start(mustFind(g.t, g.sys, qube.Name(rest)))); err != nil {
			g.t.Fatal(err)
		}
	case "has", "lacks":
		name, feature, _ := strings.Cut(rest, " ")
		feature, want, _ := strings.Cut(feature, "=")
		q, _ := g.sys.View().Named(qube.Name(name))
		if got, ok := q.Feature(feature); ok != (word == "has") || got != want {
			g.t.Errorf("%s: %q, %v", command, got, ok)
		}
	default:
		g.t.Fatalf("unknown command %q", command)
	}
}

// Every method that the specification names is in a table, or among those
// that are not built, which answer with their own exception.
func TestEveryMethodOfTheSpecificationIsKnown(t *testing.T) {
	raw, err := os.ReadFile("testdata/methods.txt")
	if err != nil {
		t.Fatal(err)
	}
	tables := []map[string]method{table(Public), table(Internal), table(Misc)}
	named := map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		name := strings.TrimSpace(line)
		if name == "" || strings.HasPrefix(name, "#") {
			continue
		}
		named[name] = true
		known := false
		for _, m := range tables {
			_, ok := m[name]
			known = known || ok
		}
		if !known {
			t.Errorf("%s is in no table", name)
		}
	}
	for _, m := range tables {
		for name := range m {
			if !named[name] && !strings.HasPrefix(name, "cubicle.") {
				t.Errorf("%s is not in the specification", name)
			}
		}
	}
	sys, path := serve(t, Public)
	if err := sys.Done(sys.Start(mustFind(t, sys, "work"))); err != nil {
		t.Fatal(err)
	}
	for name := range missingMethods() {
		request, dest := name, "dom0"
		if strings.HasPrefix(name, "admin.backup.") {
			request += "+profile"
		} else {
			dest = "work"
		}
		got := string(exchange(t, path, fmt.Appendf(nil, "%s dom0 name %s\x00", request, dest)))
		if !strings.HasPrefix(got, "2\x00QubesNotImplementedError\x00\x00"+name+" is not built: ") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// The policy's view of the system is valid JSON, and new after each change
// that concerns it.
func TestSystemInfoIsNeverOld(t *testing.T) {
	sys, path := serve(t, Internal)
	ask := func() (info struct{ Domains map[string]domainInfo }) {
		t.Helper()
		raw, ok := strings.CutPrefix(string(exchange(t, path, []byte("internal.GetSystemInfo dom0 name dom0\x00"))), "0\x00")
		if err := json.Unmarshal([]byte(raw), &info); err != nil || !ok {
			t.Fatalf("%v: %s", err, raw)
		}
		return info
	}
	id := mustFind(t, sys, "work")
	if got := ask(); got.Domains["work"].PowerState != "Halted" || got.Domains["work"].Internal {
		t.Errorf("%+v", got)
	}
	if err := sys.SetTag(id, "mine"); err != nil {
		t.Fatal(err)
	}
	if err := sys.SetFeature(id, "internal", "1"); err != nil {
		t.Fatal(err)
	}
	if got := ask().Domains["work"]; !slices.Contains(got.Tags, "mine") || !got.Internal {
		t.Errorf("%+v", got)
	}
	if err := sys.Done(sys.Start(id)); err != nil {
		t.Fatal(err)
	}
	if got := ask().Domains["work"]; got.PowerState != "Running" {
		t.Errorf("%+v", got)
	}
	if err := sys.SetProperty(id, "label", "red"); err != nil {
		t.Fatal(err)
	}
	if got := ask().Domains["work"]; got.Label != "0xcc0000" || got.Icon != "appvm-red" {
		t.Errorf("%+v", got)
	}
	if err := sys.Done(sys.Kill(id)); err != nil {
		t.Fatal(err)
	}
	if err := sys.Done(sys.Remove(id)); err != nil {
		t.Fatal(err)
	}
	if _, there := ask().Domains["work"]; there {
		t.Error("a removed qube is told of")
	}
}
