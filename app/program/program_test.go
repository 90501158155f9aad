package program_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/godbus/dbus/v5"

	"cubicle/app/dom0/dom0test"
	"cubicle/app/program"
)

func TestMetadataComesFromFyneApp(t *testing.T) {
	m, err := program.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	if m.ID != "org.cubicle.QubeManager" || m.Name != "Qube Manager" || m.Icon == nil || !m.Migrations["fyneDo"] {
		t.Errorf("metadata: %s", fmt.Sprint(m))
	}
}

func TestTheFirstStartHasPreferences(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	file := filepath.Join(home, "config", "fyne", "org.example.One", "preferences.json")
	for _, step := range []struct{ before, after string }{{"", "{}\n"}, {"{\"a\":1}", "{\"a\":1}"}} {
		if step.before != "" {
			if err := os.WriteFile(file, []byte(step.before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := program.Folders("org.example.One"); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != step.after {
			t.Errorf("preferences %q: %v", got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(home, "cache")); err != nil {
		t.Error(err)
	}
}

func TestASessionHasItOnce(t *testing.T) {
	session, stop, err := dom0test.StartBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	const id, daemon = "org.example.One", "unix:path=/run/one"
	heard := make(chan program.Wish, 4)
	first, told, err := program.Claim(session, id, daemon, program.Wish{}, func(w program.Wish) { heard <- w })
	if err != nil || told || first == nil {
		t.Fatalf("the first: %v, told %v: %v", first, told, err)
	}
	for _, wish := range []program.Wish{{}, {Settings: "work"}, {Calls: "work"}} {
		again, told, err := program.Claim(session, id, daemon, wish, nil)
		if err != nil || !told || again != nil {
			t.Fatalf("the second: %v, told %v: %v", again, told, err)
		}
		if got := <-heard; got != wish {
			t.Errorf("the first heard %+v, want %+v", got, wish)
		}
	}
	other, told, err := program.Claim(session, id, "unix:path=/run/two", program.Wish{}, nil)
	if err != nil || told || other != nil {
		t.Errorf("one of another daemon: %v, told %v: %v", other, told, err)
	}

	// What nobody of ours sends is refused.
	conn, err := dbus.Connect(session)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	object := conn.Object(id, "/org/example/One")
	none := map[string]dbus.Variant{}
	for _, bad := range [][]any{
		{"remove", []dbus.Variant{dbus.MakeVariant("work")}, none},
		{"settings", []dbus.Variant{}, none},
		{"settings", []dbus.Variant{dbus.MakeVariant(7)}, none},
		{"settings", []dbus.Variant{dbus.MakeVariant(string(make([]byte, 300)))}, none},
	} {
		if err := object.Call("org.freedesktop.Application.ActivateAction", 0, bad...).Err; err == nil {
			t.Errorf("%v was taken", bad[:2])
		}
	}
	select {
	case w := <-heard:
		t.Errorf("heard %+v", w)
	default:
	}

	first.Close()
	second, told, err := program.Claim(session, id, daemon, program.Wish{}, nil)
	if err != nil || told || second == nil {
		t.Fatalf("after the first: %v, told %v: %v", second, told, err)
	}
	second.Close()
}
