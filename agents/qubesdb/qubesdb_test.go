package qubesdb

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/qubesdb"
	"cubicle/daemon/qubesdb/tool"
	"cubicle/daemon/vchan"
)

// files lists a folder, as one line.
func files(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// dom0Side serves a database to the agent, one channel after the other.
func dom0Side(t *testing.T, dir string, self vchan.Domain) (db *qubesdb.DB, lose func()) {
	t.Helper()
	db = qubesdb.NewForQube()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	channels := make(chan *vchan.Channel, 16)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			ch, err := (&vchan.Unix{Dir: dir}).Listen(ctx, self, vchan.PortQubesDB)
			if err != nil {
				continue
			}
			channels <- ch
			if err := db.ServeQube(ctx, ch); err != nil {
				t.Error(err)
			}
			ch.Close()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return db, func() { (<-channels).Close() }
}

func TestAgent(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"run/qubes", "run/vchan", "etc", "usr/bin", "usr/share/zoneinfo/Europe"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"usr/bin/qubesdb-read": "the image's own", "usr/share/zoneinfo/Europe/Berlin": "zone"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const self = 7
	channels := filepath.Join(root, "run/vchan")
	outer, lose := dom0Side(t, channels, self)
	say := func(keys map[string]string) {
		t.Helper()
		if err := outer.Apply(true, qubesdb.Diff(nil, keys)); err != nil {
			t.Fatal(err)
		}
	}
	keys := map[string]string{
		"/name": "work", "/qubes-vm-type": "AppVM", "/qubes-vm-persistence": "rw-only", "/qubes-timezone": "Europe/Berlin",
		"/qubes-service/cups": "1", "/qubes-service/tracker": "0", "/qubes-service/-x": "1", "/qubes-service/a/b": "1",
	}
	say(keys)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	o := Options{Root: root, Program: "/usr/lib/cubicle/qubes-agent", Log: slog.New(slog.DiscardHandler)}
	go func() { ended <- Run(ctx, &vchan.Unix{Dir: channels, Self: self}, o) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if rest := files(t, filepath.Join(root, "run/qubes")); strings.Contains(rest, "sock") {
			t.Errorf("left: %s", rest)
		}
	}()

	services := func() string { return files(t, filepath.Join(root, serviceDir)) }
	eventually(t, "the services' files", func() bool {
		return services() == "cups evolution-data-server meminfo-writer qubes-update-check software-rendering"
	})
	eventually(t, "all that follows", func() bool {
		zone, _ := os.ReadFile(filepath.Join(root, "etc/timezone"))
		return string(zone) == "Europe/Berlin\n"
	})
	if _, err := os.Stat(filepath.Join(root, servicesDone)); err != nil {
		t.Error(err)
	}
	if got := files(t, filepath.Join(root, "run/qubes")); got != "persistent-rw-only qubesdb.ro.sock qubesdb.sock this-is-appvm" {
		t.Errorf("run/qubes holds %s", got)
	}
	if to, err := os.Readlink(filepath.Join(root, "etc/localtime")); to != "/usr/share/zoneinfo/Europe/Berlin" {
		t.Errorf("localtime is %q, %v", to, err)
	}
	for _, name := range tool.Names() {
		to, err := os.Readlink(filepath.Join(root, "usr/bin", name))
		if name == "qubesdb-read" {
			if err == nil {
				t.Error("the image's own tool was replaced")
			}
		} else if to != o.Program {
			t.Errorf("%s leads to %q, %v", name, to, err)
		}
	}

	// Programs of the qube read and write.
	c, err := qubesdb.Dial(filepath.Join(root, "run/qubes"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if name, err := c.Read("/name"); name != "work" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	if err := c.Write("/features-request/gui", "1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "dom0 has what was written", func() bool { v, _ := outer.Read("/features-request/gui"); return v == "1" })

	// What changes while dom0 is away is caught up with.
	if err := c.Watch("/qubes-service/"); err != nil {
		t.Fatal(err)
	}
	lose()
	delete(keys, "/qubes-service/cups")
	keys["/qubes-vm-type"] = "ProxyVM"
	keys["/qubes-timezone"] = "Nowhere/At-all"
	say(keys)
	if path, err := c.Next(ctx); path != "/qubes-service/cups" || err != nil {
		t.Errorf("event %q, %v", path, err)
	}
	eventually(t, "the services of another kind", func() bool {
		return services() == "meminfo-writer qubes-firewall qubes-network qubes-update-check software-rendering"
	})
	eventually(t, "the mark of another kind", func() bool {
		return strings.Contains(files(t, filepath.Join(root, "run/qubes")), "this-is-proxyvm") &&
			!strings.Contains(files(t, filepath.Join(root, "run/qubes")), "this-is-appvm")
	})
	if to, _ := os.Readlink(filepath.Join(root, "etc/localtime")); to != "/usr/share/zoneinfo/Europe/Berlin" {
		t.Errorf("an unknown zone makes localtime %q", to)
	}
}

func TestIsService(t *testing.T) {
	for name, want := range map[string]bool{
		"cups": true, "_x": true, "a.b-c": true, "0": true,
		"": false, "-x": false, ".x": false, "a/b": false, "a:b": false, "a b": false, "a@b": false, "..": false,
	} {
		if isService(name) != want {
			t.Errorf("isService(%q) = %v", name, !want)
		}
	}
}
