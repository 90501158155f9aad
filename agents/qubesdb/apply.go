package qubesdb

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cubicle/daemon/qubesdb"
)

// Where services and what waits for them look (spec/platform.md §3.3).
const (
	serviceDir   = "/run/qubes-service"
	servicesDone = "/run/qubes-service-environment"
	markerDir    = "/run/qubes"
)

const servicePrefix = "/qubes-service/"

// settle lets a burst of changes pass before they are carried out.
const settle = 20 * time.Millisecond

// apply carries out what the keys ask for, whenever they change.
func (o Options) apply(ctx context.Context, db *qubesdb.DB) {
	news := make(chan struct{}, 1)
	db.Notify(func(string) {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	select {
	case <-db.InStep():
	case <-ctx.Done():
		return
	}
	for {
		for _, step := range []struct {
			what string
			do   func(*qubesdb.DB) error
		}{{"services", o.services}, {"markers", o.markers}, {"time zone", o.timezone}} {
			if err := step.do(db); err != nil {
				o.Log.Warn("cannot do what dom0's keys say", "what", step.what, "err", err)
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return
		}
	}
}

// defaults are the services that are on unless dom0 says otherwise, by the
// kind of qube (spec/platform.md §3.3).
func defaults(kind string) []string {
	app := []string{"qubes-update-check", "meminfo-writer", "tracker", "evolution-data-server", "software-rendering"}
	switch kind {
	case "NetVM":
		return []string{"network-manager", "qubes-network", "qubes-update-check", "qubes-updates-proxy", "meminfo-writer", "qubes-firewall", "software-rendering"}
	case "ProxyVM":
		return []string{"qubes-network", "qubes-firewall", "qubes-update-check", "meminfo-writer", "software-rendering"}
	case "TemplateVM":
		return append(app, "updates-proxy-setup")
	}
	return app
}

// services makes the files of the services that are on, and removes others.
func (o Options) services(db *qubesdb.DB) error {
	kind, _ := db.Read("/qubes-vm-type")
	on := map[string]bool{}
	for _, name := range defaults(kind) {
		on[name] = true
	}
	for path, value := range db.All(servicePrefix) {
		if name := strings.TrimPrefix(path, servicePrefix); isService(name) {
			on[name] = value == "1"
		}
	}
	if err := os.MkdirAll(o.path(serviceDir), 0o755); err != nil {
		return err
	}
	if err := o.only(serviceDir, on, func(string) bool { return true }); err != nil {
		return err
	}
	return touch(o.path(servicesDone))
}

// isService tells the names that a service may have.
func isService(name string) bool {
	const first = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
	return name != "" && strings.ContainsRune(first, rune(name[0])) && strings.Trim(name, first+".-") == "" && !strings.ContainsAny(name, "/:@")
}

// markers are empty files that say what the qube is.
func (o Options) markers(db *qubesdb.DB) error {
	kinds := map[string]string{"AppVM": "appvm", "NetVM": "netvm", "ProxyVM": "proxyvm", "TemplateVM": "templatevm"}
	on := map[string]bool{}
	if kind, _ := db.Read("/qubes-vm-type"); kinds[kind] != "" {
		on["this-is-"+kinds[kind]] = true
	}
	if keeps, _ := db.Read("/qubes-vm-persistence"); slices.Contains([]string{"full", "rw-only", "none"}, keeps) {
		on["persistent-"+keeps] = true
	}
	return o.only(markerDir, on, func(name string) bool {
		return strings.HasPrefix(name, "this-is-") || strings.HasPrefix(name, "persistent-")
	})
}

// only makes the files of a folder that are on, and removes of the others
// those that are ours.
func (o Options) only(dir string, on map[string]bool, ours func(name string) bool) error {
	entries, err := os.ReadDir(o.path(dir))
	errs := []error{err}
	for _, e := range entries {
		if ours(e.Name()) && !on[e.Name()] {
			errs = append(errs, os.Remove(o.path(dir, e.Name())))
		}
	}
	for name, want := range on {
		if want {
			errs = append(errs, touch(o.path(dir, name)))
		}
	}
	return errors.Join(errs...)
}

// touch makes an empty file where there is none.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

const zoneInfo = "/usr/share/zoneinfo"

// timezone sets the machine's zone; one that the image does not know is left.
func (o Options) timezone(db *qubesdb.DB) error {
	zone, ok := db.Read("/qubes-timezone")
	if !ok || zone == "" || !filepath.IsLocal(zone) {
		return nil
	}
	file := filepath.Join(zoneInfo, zone)
	if st, err := os.Stat(o.path(file)); errors.Is(err, fs.ErrNotExist) || err == nil && !st.Mode().IsRegular() {
		return nil
	}
	link := o.path("/etc/localtime")
	if now, err := os.Readlink(link); err == nil && now == file {
		return nil
	}
	if err := os.Remove(link + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(file, link+".new"); err != nil {
		return err
	}
	if err := os.Rename(link+".new", link); err != nil {
		return err
	}
	return os.WriteFile(o.path("/etc/timezone"), []byte(zone+"\n"), 0o644)
}
