package admin

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cubicle/daemon/admin/client"
)

func TestAJobIsFollowedFromItsStartToItsEnd(t *testing.T) {
	_, path := serve(t, Public)
	c := &client.Client{Socket: path}
	all, err := c.Events(t.Context(), "dom0", "cubicle.job.Events")
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	other, err := c.Events(t.Context(), "debian-12", "cubicle.job.Events")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := c.Call(t.Context(), "work", "admin.vm.Start", "", nil); err != nil {
		t.Fatal(err)
	}
	var last client.Event
	for last.Args["state"] != "done" {
		if last, err = all.Next(); err != nil {
			t.Fatal(err)
		}
		if last.Name != "job:start" || last.Subject != "work" || last.Args["id"] == "" {
			t.Fatalf("%+v", last)
		}
	}
	if last.Args["progress"] != "1.000" {
		t.Errorf("%+v", last)
	}

	if _, err := c.Call(t.Context(), "debian-12", "admin.vm.Start", "", nil); err != nil {
		t.Fatal(err)
	}
	e, err := other.Next()
	if err != nil || e.Subject != "debian-12" {
		t.Errorf("the other qube's stream tells of %+v, %v", e, err)
	}
}

func TestATableOfAllQubes(t *testing.T) {
	_, path := serve(t, Public)
	c := &client.Client{Socket: path}
	if err := c.SetProperty(t.Context(), "work", "memory", "700"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Call(t.Context(), "work", "admin.vm.feature.Set", "x-note", []byte(`a\b`)); err != nil {
		t.Fatal(err)
	}
	rows, err := c.Table(t.Context(), client.PropertyColumn("memory"), client.PropertyColumn("label"),
		client.FeatureColumn("x-note"), client.TagsColumn, client.MemoryColumn, client.CPUColumn)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]client.Value{}
	for _, r := range rows {
		got[r.Name] = r.Values
	}
	if rows[0].Name != "dom0" || rows[0].Class != "AdminVM" || rows[0].State != "Running" {
		t.Errorf("%+v", rows[0])
	}
	none := client.Value{}
	for name, want := range map[string][]client.Value{
		"dom0": {none, {Text: "black", Known: true}, none},
		"work": {{Text: "700", Known: true}, {Text: "blue", Known: true}, {Text: `a\b`, Known: true}},
	} {
		if diff := cmp.Diff(want, got[name][:3]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if work := got["work"]; work[4].Known || work[5].Known {
		t.Errorf("a halted qube uses %+v", work)
	}
	for _, bad := range []string{"property", "nonsense", "property:memory\n", ""} {
		reply := exchange(t, path, []byte("cubicle.vm.List dom0 name dom0\x00"+bad))
		if !strings.HasPrefix(string(reply), "2\x00ProtocolError\x00") {
			t.Errorf("columns %q: %q", bad, reply)
		}
	}
}
