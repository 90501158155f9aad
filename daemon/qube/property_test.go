package qube

import (
	"slices"
	"strings"
	"testing"
)

// source is a qube without a template in a system of defaults.
type source struct {
	set    map[string]string
	facts  map[string]string
	parent *source
	system *source
}

func (s *source) Explicit(n string) (string, bool) { v, ok := s.set[n]; return v, ok }
func (s *source) Feature(string) (string, bool)    { return "", false }
func (s *source) Fact(n string) string             { return s.facts[n] }
func (s *source) System() Source                   { return s.system }
func (s *source) Template() Source {
	if s.parent == nil {
		return nil
	}
	return s.parent
}
func (s *source) Property(n string) string {
	row, ok := LookupSystem(n)
	if s.system != nil {
		row, ok = Lookup(Class(s.facts["klass"]), n)
	}
	if !ok {
		return ""
	}
	v, _ := row.Value(s)
	return v
}

func TestValuesComeFromQubeThenTemplateThenSystem(t *testing.T) {
	system := &source{set: map[string]string{"default_qrexec_timeout": "30"}, facts: map[string]string{"default_engine": "runsc"}}
	template := &source{set: map[string]string{"memory": "800", "label": "black"}, facts: map[string]string{"klass": "TemplateVM"}, system: system}
	app := &source{set: map[string]string{"label": "blue", "vcpus": "4"}, facts: map[string]string{"klass": "AppVM"}, parent: template, system: system}
	for name, want := range map[string]string{
		"vcpus": "4", "memory": "800", "qrexec_timeout": "30", "shutdown_timeout": "60", "default_user": "user",
		"engine": "runsc", "icon": "appvm-blue", "updateable": "False", "netvm": "",
	} {
		if got := app.Property(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if got := template.Property("icon"); got != "templatevm-black" {
		t.Errorf("the template's icon is %q", got)
	}
}

func TestParseBringsValuesIntoOneForm(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"autostart", "yes", "True"}, {"autostart", "OFF", "False"}, {"autostart", "maybe", "!"},
		{"memory", "512", "512"}, {"memory", "0", "!"}, {"memory", "007", "!"}, {"memory", "-", "!"}, {"memory", "", "!"},
		{"memory", "99999999999999999999", "!"}, {"memory", "+5", "!"}, {"maxmem", "0", "0"}, {"maxmem", "-1", "!"},
		{"label", "4", "green"}, {"label", "blue", "blue"}, {"label", "pink", "!"},
		{"netvm", "", ""}, {"netvm", "sys-net", "sys-net"}, {"netvm", "none", "!"}, {"template", "", "!"},
		{"default_user", "root;id", "!"}, {"default_user", "us\ner", "!"}, {"default_user", "usér", "!"},
	} {
		row, ok := Lookup(AppVM, c.name)
		if !ok {
			t.Fatalf("no row %s", c.name)
		}
		got, err := row.Parse(c.in)
		if err != nil {
			got = "!"
		}
		if got != c.want {
			t.Errorf("%s=%q: %q (%v), want %q", c.name, c.in, got, err, c.want)
		}
	}
}

func TestTablesAreSortedCompleteAndWithoutDoubles(t *testing.T) {
	for _, rows := range [][]Property{SystemRows(), Rows(AdminVM), Rows(AppVM), Rows(TemplateVM)} {
		var names []string
		for _, r := range rows {
			names = append(names, r.Name)
			if r.Help == "" || r.Type == "" {
				t.Errorf("row %s has no help or type", r.Name)
			}
			if r.Set == Never && r.Default == nil {
				t.Errorf("row %s is read-only and has no value", r.Name)
			}
		}
		if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Errorf("bad order: %v", names)
		}
	}
}

func TestParseUUID(t *testing.T) {
	u := NewUUID()
	if got, err := ParseUUID(string(u)); err != nil || got != u {
		t.Errorf("%q: %v", u, err)
	}
	for _, bad := range []string{"", strings.ToUpper(string(u)[:35]) + "G", string(u) + "0", strings.Repeat("-", 36), "../../../../../../../../etc/passwd12"} {
		if _, err := ParseUUID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"work", "sys-net", "none", "a-dm", "../x", "1a", "", "a\x00b", strings.Repeat("a", 32)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err == nil && (string(n) != s || len(s) > MaxName || strings.ContainsAny(s, "/\x00 \n@+:")) {
			t.Errorf("%q became %q", s, n)
		}
	})
}
