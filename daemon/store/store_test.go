package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cubicle/daemon/device"
	"cubicle/daemon/durable"
	"cubicle/daemon/qube"
)

func record(name string) Record {
	return Record{
		Name: qube.Name(name), UUID: qube.NewUUID(), QID: 3, Class: qube.AppVM,
		Properties: map[string]string{"label": "blue", "template": "debian-12", "memory": "300", "autostart": "True"},
		Features:   map[string]string{"menu-items": "xterm.desktop", "gui": ""},
		Tags:       []string{"created-by-dom0"},
		Volumes:    map[string]Volume{"private": {Size: 3 << 30}},
	}
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatWasSavedIsLoaded(t *testing.T) {
	s := open(t)
	want := record("work")
	if err := s.Save(want); err != nil {
		t.Fatal(err)
	}
	sys, _, _, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	sys.Properties["default_template"] = "debian-12"
	sys.Admin.Features["x-note"] = "a"
	if err := s.SaveSystem(sys); err != nil {
		t.Fatal(err)
	}
	sys2, records, broken, err := s.Load()
	if err != nil || len(broken) != 0 || len(records) != 1 {
		t.Fatal(records, broken, err)
	}
	if d := cmp.Diff(want, records[0], cmpopts.IgnoreUnexported(Record{})); d != "" {
		t.Error(d)
	}
	if sys2.Properties["default_template"] != "debian-12" || sys2.Admin.Features["x-note"] != "a" {
		t.Error(sys2)
	}
	raw, _ := os.ReadFile(s.path(qube.AppVM, "work", qubeFile))
	if !strings.Contains(string(raw), "memory = 300\n") || !strings.Contains(string(raw), "autostart = true\n") {
		t.Errorf("values have lost their types:\n%s", raw)
	}
}

func TestUnknownKeysSurviveAChange(t *testing.T) {
	s := open(t)
	r := record("work")
	if err := s.Save(r); err != nil {
		t.Fatal(err)
	}
	path := s.path(qube.AppVM, "work", qubeFile)
	raw, _ := os.ReadFile(path)
	text := strings.Replace(string(raw), "[properties]", "[properties]\nfuture_property = 7", 1) + "\n[future]\nkey = [1, 2]\n"
	text = strings.Replace(text, "[volumes.private]", "[volumes.private]\nencrypted = true", 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := s.LoadQube(qube.AppVM, "work")
	if err != nil {
		t.Fatal(err)
	}
	got.Properties["memory"] = "500"
	delete(got.Properties, "autostart")
	if err := s.Save(got); err != nil {
		t.Fatal(err)
	}
	raw, _ = os.ReadFile(path)
	for _, want := range []string{"future_property = 7", "[future]", "key = [1, 2]", "encrypted = true", "memory = 500"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("%q is gone:\n%s", want, raw)
		}
	}
	if strings.Contains(string(raw), "autostart") {
		t.Errorf("a reset property stayed:\n%s", raw)
	}
}

func TestADamagedFileBreaksItsOwnQubeOnly(t *testing.T) {
	s := open(t)
	for _, n := range []string{"good", "bad1", "bad2", "bad3", "bad4"} {
		r := record(n)
		if err := s.Save(r); err != nil {
			t.Fatal(err)
		}
	}
	path := func(n qube.Name) string { return s.path(qube.AppVM, n, qubeFile) }
	whole, _ := os.ReadFile(path("good"))
	damage := map[qube.Name]string{
		"bad1": "uuid = \"x",
		"bad2": "",
		"bad3": strings.Replace(string(whole), "memory = 300", "memory = -3", 1),
		"bad4": strings.Replace(string(whole), "AppVM", "TemplateVM", 1),
	}
	for n, text := range damage {
		if err := os.WriteFile(path(n), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.Mkdir(filepath.Join(s.dir, "appvms", "empty-folder"), 0o700)
	_, records, broken, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 1 || records[0].Name != "good" || len(broken) != len(damage) {
		t.Errorf("%d good, %v", len(records), broken)
	}
	for _, b := range broken {
		if b.Err == nil || !strings.Contains(b.Err.Error(), string(b.Name)) {
			t.Errorf("%s: %v does not name the file", b.Name, b.Err)
		}
	}
}

// A crash may come between any two steps of a write; what remains on disk
// then is a temporary file beside the old text.
func TestAnInterruptedWriteLeavesTheOldText(t *testing.T) {
	s := open(t)
	r := record("work")
	if err := s.Save(r); err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(s.path(qube.AppVM, "work", qubeFile))
	for cut := range len(whole) {
		if err := os.WriteFile(s.path(qube.AppVM, "work", ".qube.toml.123"), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.LoadQube(qube.AppVM, "work")
		if err != nil || got.QID != r.QID {
			t.Fatalf("after %d bytes: %v", cut, err)
		}
	}
	// A write that fails leaves the old text and no temporary file.
	dir := s.path(qube.AppVM, "work")
	if err := durable.Write(filepath.Join(dir, "missing", "x"), nil, nil); err == nil {
		t.Error("a write into a missing folder succeeded")
	}
	os.Remove(filepath.Join(dir, ".qube.toml.123"))
	if err := s.Save(r); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func FuzzDecode(f *testing.F) {
	raw, _ := record("work").encode()
	f.Add(string(qube.AppVM), string(raw))
	f.Add(string(qube.AppVM), "uuid = 1")
	f.Add(string(qube.AppVM), "[properties]\nmemory = [1]")
	for _, c := range qube.Classes() {
		f.Add(string(c), strings.Replace(string(raw), "AppVM", string(c), 1))
		f.Add(string(c), "uuid = \"01234567-89ab-4def-8123-456789abcdef\"\nqid = 1\nclass = \""+string(c)+"\"\n[properties]\nrelayvm = \"x\"\ndispid = 7\nip = \"10.0.0.1\"\n")
	}
	f.Fuzz(func(t *testing.T, class, text string) {
		r, err := decode("work", qube.Class(class), []byte(text))
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		r2, err := decode("work", r.Class, again)
		if err != nil {
			t.Fatalf("cannot read what was written: %v\n%s", err, again)
		}
		if d := cmp.Diff(r, r2, cmpopts.IgnoreUnexported(Record{}), cmpopts.EquateEmpty()); d != "" {
			t.Error(d)
		}
	})
}

// The system's damaged file has a name and a mend, and is not written over.
func TestDamagedSystemFile(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, systemFile)
	damaged := []byte("[dom0\n")
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	system, _, _, err := s.Load()
	if err != nil || system.Damage == nil || !strings.Contains(system.Damage.Error(), path) {
		t.Fatalf("Load() = %+v, %v", system, err)
	}
	if err := s.SaveSystem(system); !errors.Is(err, system.Damage) {
		t.Errorf("SaveSystem() = %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, damaged) {
		t.Errorf("the file is %q, %v", now, err)
	}
}

// What a kill leaves between two steps of a write is swept away.
func TestInterruptedWrites(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := Record{Name: "work", UUID: qube.NewUUID(), QID: 1, Class: qube.AppVM, Properties: map[string]string{"label": "red"}}
	if err := s.Save(r); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(dir, "appvms/work/."+qubeFile+".123")
	empty := filepath.Join(dir, "appvms/empty")
	if err := errors.Join(os.WriteFile(half, nil, 0o600), os.Mkdir(empty, 0o711)); err != nil {
		t.Fatal(err)
	}
	_, records, broken, err := s.Load()
	if err != nil || len(records) != 1 || len(broken) != 0 {
		t.Fatalf("Load() = %v, %v, %v", records, broken, err)
	}
	for _, path := range []string{half, empty} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

func TestDevicesVolumesAndPoolsSurvive(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	keep := -1
	r := Record{Name: "work", UUID: qube.NewUUID(), QID: 1, Class: qube.AppVM, Properties: map[string]string{"label": "blue"}}.Clone()
	r.Volumes["private"] = Volume{Pool: "p", Size: 1 << 30, Revisions: &keep, Kept: []string{"1@2026-03-14T12:00:00Z"}, ReadOnly: true, Foreign: true, Imported: true}
	r.Devices = []device.Assignment{{
		Device: device.Device{Class: device.Block, Backend: "vault", Port: "sda", ID: device.Any},
		Mode:   device.Required, Options: map[string]string{"read-only": "yes"},
	}}
	sys := System{Properties: map[string]string{}, Admin: Record{Devices: r.Devices}, Pools: map[string]Pool{"p": {Driver: "file", Options: map[string]string{"dir_path": "/x"}, Revisions: &keep}}}
	if err := errors.Join(s.Save(r), s.SaveSystem(sys), s.SetFirewall(r.Class, r.Name, []byte("<firewall/>"))); err != nil {
		t.Fatal(err)
	}
	gotSys, records, broken, err := s.Load()
	if err != nil || len(records) != 1 || len(broken) > 0 {
		t.Fatal(err, broken)
	}
	if !reflect.DeepEqual(records[0].Volumes, r.Volumes) || !reflect.DeepEqual(records[0].Devices, r.Devices) {
		t.Errorf("%+v", records[0])
	}
	if !reflect.DeepEqual(gotSys.Pools, sys.Pools) || !reflect.DeepEqual(gotSys.Admin.Devices, r.Devices) || gotSys.Damage != nil {
		t.Errorf("%+v", gotSys)
	}
	if raw, err := s.Firewall(r.Class, r.Name); err != nil || string(raw) != "<firewall/>" {
		t.Errorf("%q, %v", raw, err)
	}
	r.Devices, r.Volumes = nil, nil
	if err := s.Save(r); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LoadQube(r.Class, r.Name); err != nil || len(got.Devices) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, damaged := range []string{
		"[[devices]]\nclass = \"gpu\"\nbackend = \"a\"\nport = \"x\"\nid = \"*\"\nmode = \"required\"\n",
		"[[devices]]\nclass = \"mic\"\nbackend = \"dom0\"\nport = \"mic\"\nid = \"*\"\nmode = \"manual\"\n",
		"[volumes.private]\nrevisions_to_keep = -2\n",
	} {
		raw := "uuid = \"" + string(r.UUID) + "\"\nqid = 1\nclass = \"AppVM\"\n" + damaged
		if err := os.WriteFile(filepath.Join(dir, "appvms", "work", "qube.toml"), []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.LoadQube(r.Class, r.Name); err == nil {
			t.Errorf("%q became %+v", damaged, got)
		}
	}
}
