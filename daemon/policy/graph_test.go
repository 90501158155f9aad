package policy

import (
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
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
	for _, name := range []string{"dom0", "a", "b", "base"} {
		var want []Edge
		for _, e := range p.Graph(s) {
			if e.Source == name || e.Target == name || e.Target == "@dispvm:"+name {
				want = append(want, e)
			}
		}
		if d := cmp.Diff(want, p.Around(s, name)); d != "" {
			t.Errorf("around %s: %s", name, d)
		}
	}
}

func TestBundlesSayWhatEdgesSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", "d", "@dispvm:a"}
		edges := map[Edge]bool{}
		for range rapid.IntRange(0, 40).Draw(t, "edges") {
			e := Edge{rapid.SampledFrom(names[:4]).Draw(t, "source"), rapid.SampledFrom(names).Draw(t, "target"),
				rapid.SampledFrom([]string{"s", "t", "u+x"}).Draw(t, "service"), rapid.Bool().Draw(t, "ask")}
			if e.Source != e.Target {
				edges[e] = true
			}
		}
		got := map[Edge]bool{}
		for _, b := range bundles(slices.Collect(maps.Keys(edges))) {
			for _, source := range b.sources {
				for _, target := range b.targets {
					for _, service := range b.services {
						if source != target {
							got[Edge{source, target, service, b.ask}] = true
						}
					}
				}
			}
		}
		if !maps.Equal(edges, got) {
			t.Fatalf("%v became %v", edges, got)
		}
	})
}

func TestSVGIsWellFormed(t *testing.T) {
	s, err := NewSystem([]*Domain{{Name: "work", Label: "0x3465a4"}, {Name: "a<b", Label: `"/>`}})
	if err != nil {
		t.Fatal(err)
	}
	var edges []Edge
	for i := range 30 {
		edges = append(edges, Edge{"work", "a<b", fmt.Sprintf("s.Number%d&", i), i%2 == 0})
	}
	edges = append(edges, Edge{"a<b", "@dispvm:work", "x", false})
	for _, edges := range [][]Edge{nil, edges} {
		var b strings.Builder
		if err := WriteSVG(&b, s, edges); err != nil {
			t.Fatal(err)
		}
		words := ""
		for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
			token, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, b.String())
			}
			if text, ok := token.(xml.CharData); ok {
				words += string(text) + "\n"
			}
		}
		for _, want := range []string{"a<b", "disposable (work)", "s.Number28&", "and 2 more"} {
			if strings.Contains(words, want) != (edges != nil) {
				t.Errorf("%q: %s", want, words)
			}
		}
	}
}
