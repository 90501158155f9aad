package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cubicle/daemon/durable"
	"cubicle/daemon/qube"
)

// twoAndSystem is a change of three files.
func twoAndSystem(n int) ([]Record, *System) {
	var records []Record
	for i, name := range []qube.Name{"one", "two"} {
		records = append(records, Record{Name: name, UUID: qube.UUID(fmt.Sprintf("01234567-89ab-4def-8123-456789abcd%02d", i)), QID: i + 1, Class: qube.AppVM,
			Properties: map[string]string{"label": "red", "memory": fmt.Sprint(n)}}.Clone())
	}
	return records, &System{Properties: map[string]string{"stats_interval": fmt.Sprint(n)}}
}

// state is what a change of three files left: one number if it is whole.
func state(t *testing.T, dir string) string {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	sys, records, broken, err := s.Load()
	if err != nil || len(broken) > 0 {
		t.Fatal(err, broken)
	}
	found := sys.Properties["stats_interval"]
	for _, r := range records {
		found += " " + r.Properties["memory"]
	}
	return found
}

// A crash may come after any step of a change of several files: then all of
// them are old, or after the load all are new.
func TestAnInterruptedChangeOfSeveralFiles(t *testing.T) {
	for steps := 0; ; steps++ {
		dir := t.TempDir()
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		records, sys := twoAndSystem(100)
		if err := s.Commit(records, sys); err != nil {
			t.Fatal(err)
		}
		want := "100 100 100"
		// The change by hand, up to a step.
		records, sys = twoAndSystem(200)
		raw, _ := sys.encode()
		texts := map[string][]byte{systemFile: raw}
		for _, r := range records {
			raw, _ := r.encode()
			texts[filepath.Join(Path(r.Class, r.Name), qubeFile)] = raw
		}
		var changes []change
		step := 0
		do := func(f func() error) {
			if step++; step <= steps {
				if err := f(); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, path := range []string{systemFile, "appvms/one/" + qubeFile, "appvms/two/" + qubeFile} {
			c := change{filepath.Join(filepath.Dir(path), durable.TempPrefix(path)+"7"), path}
			changes = append(changes, c)
			do(func() error { return os.WriteFile(filepath.Join(dir, c.From), texts[path], 0o600) })
		}
		do(func() error {
			return os.WriteFile(filepath.Join(dir, durable.TempPrefix(journalFile)+"7"), []byte("[{"), 0o600)
		})
		do(func() error {
			want = "200 200 200" // from here on it stands
			raw, _ := json.Marshal(changes)
			return os.WriteFile(filepath.Join(dir, journalFile), raw, 0o600)
		})
		for _, c := range changes {
			do(func() error { return os.Rename(filepath.Join(dir, c.From), filepath.Join(dir, c.To)) })
		}
		if got := state(t, dir); got != want {
			t.Errorf("after %d steps: %s, want %s", steps, got, want)
		}
		if got := state(t, dir); got != want {
			t.Errorf("after %d steps, loaded again: %s, want %s", steps, got, want)
		}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				t.Errorf("after %d steps: %s is left", steps, e.Name())
			}
		}
		if steps >= step {
			return
		}
	}
}

// What cannot be written changes nothing.
func TestAChangeThatFails(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	records, sys := twoAndSystem(100)
	if err := s.Commit(records, sys); err != nil {
		t.Fatal(err)
	}
	records, sys = twoAndSystem(200)
	sys.Damage = errors.New("damaged")
	if err := s.Commit(records, sys); !errors.Is(err, sys.Damage) {
		t.Errorf("over a damaged file: %v", err)
	}
	sys.Damage = nil
	records = append(records, Record{Name: "new", UUID: qube.NewUUID(), QID: 9, Class: qube.AppVM}.Clone())
	// A folder stands where the system's file is to be: the rename fails, but
	// only once the change stands, and the next one finishes it.
	path := filepath.Join(dir, systemFile)
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(records, sys); err != nil {
		t.Errorf("a change that stands: %v", err)
	}
	more, _ := twoAndSystem(300)
	if err := s.Commit(more, nil); err == nil {
		t.Error("a change before the last one is finished")
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(more, nil); err != nil {
		t.Error(err)
	}
	if got := state(t, dir); !strings.HasPrefix(got, "200 ") || strings.Count(got, "300") != 2 {
		t.Errorf("now it is %s", got)
	}
}

// A journal of somebody else's must not move files elsewhere.
func TestAJournalThatPointsElsewhere(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`[{"from":"x","to":"../y"}]`, `[{"from":"/etc/passwd","to":"y"}]`, `{`} {
		if err := os.WriteFile(filepath.Join(dir, journalFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := s.Load(); err == nil || !strings.Contains(err.Error(), journalFile) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestLabelsSurvive(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	sys := System{Labels: []qube.Label{{Name: "pink", Index: 9, Color: 0xff00ff}, {Name: "mint", Index: 12, Color: 1}}}
	if err := s.SaveSystem(sys); err != nil {
		t.Fatal(err)
	}
	got, _, _, err := s.Load()
	if err != nil || len(got.Labels) != 2 || got.Labels[0] != sys.Labels[0] || got.Labels[1] != sys.Labels[1] {
		t.Errorf("%+v, %v", got.Labels, err)
	}
	for _, bad := range []string{"[labels.red]\nindex=9\ncolor=\"0x000000\"", "[labels.a]\nindex=8\ncolor=\"0x000000\"", "[labels.a]\nindex=9\ncolor=\"red\"",
		"[labels.\"a b\"]\nindex=9\ncolor=\"0x000000\"", "[labels.a]\nindex=9\ncolor=\"0x000000\"\n[labels.b]\nindex=9\ncolor=\"0x000000\""} {
		if err := os.WriteFile(filepath.Join(dir, systemFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _, _, err := s.Load(); err != nil || got.Damage == nil || len(got.Labels) > 0 {
			t.Errorf("%s became %+v, %v", bad, got, err)
		}
	}
}

// Whatever is read of the system's file can be written and read again.
func FuzzSystem(f *testing.F) {
	f.Add("[properties]\nstats_interval = 5\n[labels.pink]\nindex = 9\ncolor = \"0xff00ff\"\n")
	f.Add("[dom0.features]\nx = \"1\"\n[dom0]\ntags = [\"a\"]\n")
	f.Add("[pools.p]\ndriver = \"file\"\n[pools.p.options]\ndir_path = \"/x\"\n")
	f.Add("[dom0]\nproperties = 1")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, systemFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		sys, err := s.loadSystem()
		if err != nil || sys.Damage != nil {
			return
		}
		if err := s.SaveSystem(sys); err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		if again, err := s.loadSystem(); err != nil || again.Damage != nil {
			t.Fatalf("cannot read what was written: %v, %v", err, again.Damage)
		}
	})
}
