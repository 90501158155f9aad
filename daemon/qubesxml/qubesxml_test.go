package qubesxml

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the golden files anew")

func read(t testing.TB, raw []byte) (*Document, []Note) {
	t.Helper()
	d, notes, err := Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return d, notes
}

func show[T any](list []T) string {
	var b strings.Builder
	for _, v := range list {
		fmt.Fprintln(&b, v)
	}
	return b.String()
}

func (s Step) String() string {
	return strings.TrimRight(fmt.Sprintf("%s | %s %s+%s %s", s.Text, s.Dest, s.Method, s.Arg, s.Payload), " ")
}

// TestGolden reads a file, plans it into a system with and without -update,
// and writes it.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in := map[string][]byte{}
		for _, f := range archive.Files {
			in[f.Name] = f.Data
		}
		want, notes := read(t, in["qubes.xml"])
		have, _ := read(t, in["have.xml"])
		beside := fstest.MapFS{}
		for name, data := range in {
			if strings.Contains(name, "/") {
				beside[name] = &fstest.MapFile{Data: data}
			}
		}
		plan := NewPlan(want, have, PlanOptions{Beside: beside})
		again := NewPlan(want, have, PlanOptions{Update: true})
		var written bytes.Buffer
		if err := want.Write(&written); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{
			"read": show(notes), "steps": show(plan.Steps), "notes": show(plan.Notes),
			"update steps": show(again.Steps), "update notes": show(again.Notes), "written": written.String(),
		}
		for i, f := range archive.Files {
			text, ok := got[f.Name]
			if !ok {
				continue
			}
			if *update {
				archive.Files[i].Data = []byte(text)
			} else if diff := cmp.Diff(string(f.Data), text); diff != "" {
				t.Errorf("%s: %s: %s", file, f.Name, diff)
			}
		}
		if *update {
			if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		// What was written says the same, and needs no change any more.
		back, notes := read(t, written.Bytes())
		if diff := cmp.Diff(want, back); diff != "" || len(notes) > 0 {
			t.Errorf("%s: written and read: %s %v", file, diff, notes)
		}
		if p := NewPlan(want, want, PlanOptions{Update: true}); len(p.Steps) > 0 {
			t.Errorf("%s: into itself: %v", file, p.Steps)
		}
	}
}

func TestTemplatesAreReplaced(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/today.txtar")
	if err != nil {
		t.Fatal(err)
	}
	want, _ := read(t, archive.Files[0].Data)
	have, _ := read(t, []byte(`<qubes><domains><domain id="domain-3" class="TemplateVM"><properties><property name="name">other</property></properties></domain></domains></qubes>`))
	none := NewPlan(want, have, PlanOptions{})
	if strings.Contains(show(none.Steps), "admin.vm.Create.AppVM") || !strings.Contains(show(none.Notes), "nothing takes its place") {
		t.Errorf("without a template:\n%s%s", show(none.Steps), show(none.Notes))
	}
	mapped := NewPlan(want, have, PlanOptions{Templates: map[string]string{"fedora-43-xfce": "other"}})
	for _, step := range []string{"admin.vm.Create.AppVM+other name=sys-net label=red", "admin.property.Set+default_template other"} {
		if !strings.Contains(show(mapped.Steps), step) {
			t.Errorf("no %s in\n%s", step, show(mapped.Steps))
		}
	}
}

func TestReadRefuses(t *testing.T) {
	domain := func(id, class, name string) string {
		return fmt.Sprintf(`<domain id=%q class=%q><properties><property name="name">%s</property></properties></domain>`, id, class, name)
	}
	in := func(domains ...string) string {
		return "<qubes><domains>" + strings.Join(domains, "") + "</domains></qubes>"
	}
	for name, text := range map[string]string{
		"nothing":            "",
		"another format":     "<QubesVmCollection></QubesVmCollection>",
		"half":               "<qubes><labels>",
		"no name":            in(`<domain id="domain-1" class="AppVM"></domain>`),
		"the same name":      in(domain("domain-1", "AppVM", "a"), domain("domain-2", "AppVM", "a")),
		"the same number":    in(domain("domain-1", "AppVM", "a"), domain("domain-1", "AppVM", "b")),
		"dom0's number":      in(domain("domain-0", "AppVM", "a")),
		"another dom0":       in(domain("domain-1", "AdminVM", "dom0")),
		"no number":          in(domain("x", "AppVM", "a")),
		"too large number":   in(domain("domain-10001", "AppVM", "a")),
		"no such reference":  in(`<domain id="domain-1" class="AppVM"><properties><property name="name">a</property><property name="netvm" ref="domain-9"/></properties></domain>`),
		"no name of a value": in(`<domain id="domain-1" class="AppVM"><properties><property name="name">a</property><property>1</property></properties></domain>`),
		"a bad colour":       `<qubes><labels><label id="label-1" color="0xfffffff">red</label></labels></qubes>`,
		"a bad label":        `<qubes><labels><label id="x" color="0xffffff">red</label></labels></qubes>`,
		"an entity":          `<!DOCTYPE q [<!ENTITY a "aaaa">]><qubes><labels><label id="label-1" color="0xffffff">&a;</label></labels></qubes>`,
		"a long value":       in(`<domain id="domain-1" class="AppVM"><properties><property name="name">a</property><property name="x">` + strings.Repeat("x", maxText+1) + `</property></properties></domain>`),
		"a huge file":        "<qubes>" + strings.Repeat(" ", maxFile) + "</qubes>",
	} {
		if _, _, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s: was read", name)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
	}
}

// caller fails some calls and keeps the others.
type caller struct {
	fail string
	made []string
}

func (c *caller) Call(_ context.Context, dest, method, arg string, payload []byte) (string, error) {
	call := fmt.Sprintf("%s %s+%s %s", dest, method, arg, payload)
	if strings.Contains(call, c.fail) {
		return "", errors.New("refused")
	}
	c.made = append(c.made, call)
	return "", nil
}

func TestCarryGoesOnAfterAFailure(t *testing.T) {
	p := &Plan{Steps: []Step{
		{Dest: "dom0", Method: "admin.vm.Create.AppVM", Payload: "name=a", Makes: "a"},
		{Dest: "dom0", Method: "admin.vm.Create.AppVM", Payload: "name=b", Makes: "b"},
		{Dest: "a", Method: "admin.vm.tag.Set", Arg: "x"},
		{Dest: "b", Method: "admin.vm.tag.Set", Arg: "x"},
	}}
	c := &caller{fail: "name=a"}
	var said []string
	failed, err := p.Carry(context.Background(), c, func(s Step, err error) { said = append(said, fmt.Sprintf("%s%s: %v", s.Dest, s.Payload, err)) })
	if failed != 2 || err != nil {
		t.Error(failed, err)
	}
	if diff := cmp.Diff([]string{"dom0name=a: refused", "dom0name=b: <nil>", "a: its qube could not be made", "b: <nil>"}, said); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"dom0 admin.vm.Create.AppVM+ name=b", "b admin.vm.tag.Set+x "}, c.made); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Carry(ctx, c, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// FuzzRead: what is read can be planned and written, and then reads the same.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data)
		f.Add(archive.Files[1].Data)
	}
	f.Add([]byte(`<qubes><domains><domain id="domain-1" class="AppVM"><properties><property name="name"> a&#13;</property></properties></domain></domains></qubes>`))
	f.Add([]byte(`<qubes><labels><label id="1" color="0">l k</label></labels><domains><domain id="domain-1" class="AppVM"><properties><property name="name">a</property><property name="label" ref="1"/></properties></domain></domains></qubes>`))
	have := &Document{Properties: map[string]string{}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, _, err := Read(bytes.NewReader(raw))
		if err != nil {
			return
		}
		for _, s := range NewPlan(d, have, PlanOptions{Update: true}).Steps {
			for _, part := range []string{s.Dest, s.Method, s.Arg} {
				if strings.ContainsAny(part, "\x00\n ") {
					t.Fatalf("a call that cannot be made: %q", s)
				}
			}
		}
		var b bytes.Buffer
		if err := d.Write(&b); err != nil {
			return // characters that XML cannot hold
		}
		for _, l := range d.Labels {
			if strings.HasPrefix(l.Name, "label-") {
				return // reads as an id
			}
		}
		back, _, err := Read(&b)
		if err != nil {
			t.Fatalf("%v:\n%s", err, b.String())
		}
		if diff := cmp.Diff(d, back); diff != "" {
			t.Fatalf("%s\n%s", diff, b.String())
		}
	})
}
