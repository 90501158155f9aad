package bus

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cubicle/assets/dbus"
	"cubicle/daemon/bus/client"
	"cubicle/daemon/core/coretest"
)

// What the bus's configuration lets the desktop user call is what is served.
func TestTheBusConfigurationNamesTheSurface(t *testing.T) {
	allowed := dbus.DesktopCalls()
	for _, i := range []interfaceSpec{managerSpec, qubeSpec, poolSpec, jobSpec} {
		for _, m := range i.methods {
			if !slices.Contains(allowed, dbus.Call{Interface: i.name, Member: m.name}) {
				t.Errorf("the bus does not let the desktop user call %s.%s", i.name, m.name)
			}
		}
	}
	for _, c := range allowed {
		for _, i := range []interfaceSpec{managerSpec, qubeSpec, poolSpec, jobSpec} {
			if _, served := i.method(c.Member); i.name == c.Interface && !served {
				t.Errorf("the bus allows %s.%s, which does not exist", c.Interface, c.Member)
			}
		}
	}
}

func TestTheInsideOfAQube(t *testing.T) {
	s, address := coretest.NewSystem(t), daemon(t)
	serve(t, s.Core, address, os.Getuid())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c, err := client.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rows, err := c.DraftProperties(ctx, "AppVM", "")
	if i := slices.IndexFunc(rows, func(r client.Property) bool { return r.Name == "memory" }); err != nil || i < 0 || rows[i].Value != "400" || !rows[i].Default {
		t.Fatalf("the rows of a draft: %+v, %v", rows, err)
	}
	if _, err := c.CheckProperty(ctx, "AppVM", "", "memory", "lots"); err == nil || !strings.Contains(err.Error(), "not a number") {
		t.Errorf("a wrong memory: %v", err)
	}
	if v, err := c.CheckProperty(ctx, "AppVM", "", "autostart", "yes"); err != nil || v != "True" {
		t.Errorf("autostart yes became %q, %v", v, err)
	}
	job, err := c.CreateSized(ctx, "work", "AppVM", "blue", map[string]string{"memory": "512"}, map[string]uint64{"private": 64 << 20})
	if err == nil {
		_, err = c.Wait(ctx, job)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateSized(ctx, "tiny", "AppVM", "blue", nil, map[string]uint64{"private": 1}); err == nil {
		t.Error("a volume of one byte was accepted")
	}
	q, _ := s.View().Named("work")
	id := string(q.UUID())
	if q.Number("memory") != 512 {
		t.Errorf("memory is %d", q.Number("memory"))
	}
	if v, _ := q.Volume("private"); v.Spec.Size != 64<<20 {
		t.Errorf("the private volume has %d bytes", v.Spec.Size)
	}
	if err := c.Resize(ctx, id, "private", 128<<20); err != nil {
		t.Error(err)
	}
	if err := c.Revert(ctx, id, "private", "nosuch"); err == nil || client.ErrorName(err) != "QubesVolumeRevisionNotFoundError" {
		t.Errorf("revert to nothing: %v", err)
	}
	if err := c.SetNotes(ctx, id, "mind the gap\n"); err != nil {
		t.Error(err)
	}
	if text, err := c.Notes(ctx, id); err != nil || text != "mind the gap\n" {
		t.Errorf("notes: %q, %v", text, err)
	}
	rows, err = c.Properties(ctx, id)
	if i := slices.IndexFunc(rows, func(r client.Property) bool { return r.Name == "memory" }); err != nil || i < 0 || rows[i].Value != "512" || rows[i].Default || !rows[i].Settable || rows[i].Help == "" {
		t.Errorf("the rows: %+v, %v", rows, err)
	}

	if text, err := c.Console(ctx, id, 10); err != nil || len(text) != 0 {
		t.Errorf("the console before the first start: %q, %v", text, err)
	}
	folder := filepath.Join(s.Dir, "log")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "console-work.log"), []byte("one\ntwo\n\x1b[1mthree\xff\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := c.Console(ctx, id, 2); err != nil || string(text) != "two\n\x1b[1mthree\xff\n" {
		t.Errorf("the console: %q, %v", text, err)
	}

	if apps, err := c.Apps(ctx, id); err != nil || len(apps) != 0 {
		t.Errorf("apps before a start: %v, %v", apps, err)
	}
	s.World.Said = map[string]string{"qubes.GetAppmenus": "xterm.desktop:Name=X\x1bTerm\u202e\nxterm.desktop:Exec=x\n\n../evil.desktop:Name=E\nfirefox.desktop:Name=Firefox\n"}
	if err := s.Done(s.Start(q.UUID())); err != nil {
		t.Fatal(err)
	}
	want := []client.App{{ID: "firefox", Name: "Firefox"}, {ID: "xterm", Name: "XTerm"}}
	if apps, err := c.Apps(ctx, id); err != nil || !slices.Equal(apps, want) {
		t.Errorf("apps: %q, %v", apps, err)
	}
	if err := s.Done(s.Kill(q.UUID())); err != nil {
		t.Fatal(err)
	}
	s.World.Said = nil
	if apps, err := c.Apps(ctx, id); err != nil || !slices.Equal(apps, want) {
		t.Errorf("apps of the halted qube: %q, %v", apps, err)
	}
	messages, err := c.Messages(ctx, id, 50)
	if err != nil || !slices.ContainsFunc(messages, func(m string) bool { return strings.Contains(m, "job done") && strings.Contains(m, "start") }) {
		t.Errorf("messages: %q, %v", messages, err)
	}
}
