package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGraph(t *testing.T) {
	s, err := NewSystem([]*Domain{{Name: "dom0", UUID: nilUUID, Class: "AdminVM"}, {Name: "a", UUID: "1", GUIVM: "dom0", DefaultDispVM: "base"},
		{Name: "b", UUID: "2", GUIVM: "dom0"}, {Name: "base", UUID: "3", Base: true}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := Load(write(t, t.TempDir(), map[string]string{"policy.d/30-a.policy": `
q.Copy  +secret  @anyvm  @anyvm   deny
q.Copy  *        a       b        allow
q.Copy  *        b       a        ask
q.Open  *        a       @dispvm  allow
q.Open  *        b       @default allow target=uuid:1
q.Date  *        @anyvm  dom0     allow
`}))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if err := WriteDOT(&got, p.Graph(s)); err != nil {
		t.Fatal(err)
	}
	want := `digraph policy {
	rankdir=LR;
	"a" -> "@dispvm:base" [label="q.Open", style=solid];
	"a" -> "b" [label="q.Copy", style=solid];
	"a" -> "dom0" [label="q.Date", style=solid];
	"b" -> "a" [label="q.Copy", style=dashed];
	"b" -> "a" [label="q.Open", style=solid];
	"b" -> "dom0" [label="q.Date", style=solid];
	"base" -> "dom0" [label="q.Date", style=solid];
}
`
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Error(d)
	}
}
