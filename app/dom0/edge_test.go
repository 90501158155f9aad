package dom0

import (
	"strings"
	"testing"

	"cubicle/daemon/bus/client"
)

// What the daemon tells is checked here and nowhere behind.
func TestWhatCannotBeIsLeftOut(t *testing.T) {
	good := client.Qube{UUID: "1", Name: "work", Label: "red", Template: "debian-12", NetVM: "sys-net"}
	if q, err := fromQube(good); err != nil || q.Name != "work" || q.Template != "debian-12" || q.NetVM != "sys-net" || q.Label.Name != "red" {
		t.Errorf("%+v: %v", q, err)
	}
	for what, spoil := range map[string]func(*client.Qube){
		"no name":            func(q *client.Qube) { q.Name = "" },
		"a control sequence": func(q *client.Qube) { q.Name = "work\x1b[2J" },
		"a long name":        func(q *client.Qube) { q.Name = strings.Repeat("a", 32) },
		"a template":         func(q *client.Qube) { q.Template = "../etc" },
		"a network":          func(q *client.Qube) { q.NetVM = "sys net" },
		"a label":            func(q *client.Qube) { q.Label = "<b>red</b>" },
	} {
		q := good
		spoil(&q)
		if got, err := fromQube(q); err == nil {
			t.Errorf("%s: taken as %+v", what, got)
		}
	}
	if j, err := fromJob(client.Job{ID: 1, Qube: "work\nrm"}); err == nil {
		t.Errorf("a job is taken as %+v", j)
	}
	if j, err := fromJob(client.Job{ID: 1}); err != nil || j.Qube != "" {
		t.Errorf("a job of no qube: %+v, %v", j, err)
	}

	b := Connect("unix:path=" + t.TempDir() + "/nothing")
	defer b.Close()
	bad := good
	bad.UUID, bad.Name = "2", "bad name"
	b.change(func() weight {
		return max(b.apply(client.QubeAdded{Qube: good}), b.apply(client.QubeAdded{Qube: bad}), b.apply(client.LabelsChanged{Labels: []client.Label{{Name: "red"}, {Name: "re d"}}}))
	})
	if s := b.Snapshot(); len(s.Qubes) != 1 || len(s.Labels) != 1 {
		t.Errorf("the snapshot has %d qubes and %d labels", len(s.Qubes), len(s.Labels))
	}
}

func FuzzParseAppID(f *testing.F) {
	for _, seed := range []string{"xterm", "org.xfce.mousepad", "qubes-run-terminal", "", "-e", ".hidden", "a/b", "a b", "é", strings.Repeat("x", 300), "a\x00b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseAppID(text)
		if err != nil {
			if id != "" {
				t.Errorf("%q is %q and %v", text, id, err)
			}
			return
		}
		if string(id) != text || len(id) > maxAppID || strings.ContainsAny(text, "/\x00 \n'\"$`;&|<>") || text[0] == '-' {
			t.Errorf("%q is taken", text)
		}
	})
}
