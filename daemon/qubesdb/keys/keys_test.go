package keys

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/network/firewall"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
	"cubicle/daemon/vchan"
)

// lines are keys as people write them down.
func lines(keys map[string]string) string {
	var all []string
	for path, value := range keys {
		all = append(all, strings.TrimSpace(path+" = "+value))
	}
	slices.Sort(all)
	return strings.Join(all, "\n") + "\n"
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// system is a core with a netvm and a qube behind it.
func system(t *testing.T) (s *coretest.System, net, work qube.UUID) {
	t.Helper()
	s = coretest.NewSystem(t)
	var err error
	net, err = s.NewQube("sys-net", "red")
	must(t, err)
	work, err = s.NewQube("work", "blue")
	must(t, err)
	must(t, s.Core.SetProperty(net, "netvm", ""))
	must(t, s.Core.SetProperty(net, "provides_network", "True"))
	must(t, s.Core.SetProperty(work, "netvm", "sys-net"))
	return s, net, work
}

func start(t *testing.T, s *coretest.System, id qube.UUID) {
	t.Helper()
	must(t, s.Done(s.Core.Start(id)))
}

func lookup(t *testing.T, s *coretest.System, id qube.UUID) core.Qube {
	t.Helper()
	q, ok := s.Core.View().Lookup(id)
	if !ok {
		t.Fatalf("no qube %s", id)
	}
	return q
}

func TestKeysOfAQube(t *testing.T) {
	s, _, work := system(t)
	for name, value := range map[string]string{
		"service.cups": "1", "service.tracker": "", "service.app-dispvm.firefox": "1", "service.meminfo-writer": "1",
		"vm-config.COLOUR": "green", "check-updates": "",
		"custom-persist.ssh": "/home/user/.ssh", "gui-videoram-min": "1000",
	} {
		must(t, s.Core.SetFeature(work, name, value))
	}
	must(t, s.Core.SetFeature(qube.Dom0UUID, "gui-videoram-overhead", "2000"))
	must(t, s.Core.SetProperty(work, "keyboard_layout", "de+nodeadkeys+"))
	q := lookup(t, s, work)
	got := NewSurvey(s.Core.View(), Host{Timezone: "Europe/Berlin"}).Of(q)
	// The addresses follow from the number, which the core chooses.
	text := strings.ReplaceAll(lines(got), q.Property("ip"), "<ip>")
	net, _ := q.Referent("netvm")
	text = strings.ReplaceAll(text, net.Property("ip"), "<gateway>")
	want := `/default-user = user
/hash-app-dispvm/FuX2DyB6GgBzRRw1qdMV0X_cF9f6tmRJsAzfqtyLJJ4 = firefox
/keyboard-layout = de+nodeadkeys+
/name = work
/persist/ssh = /home/user/.ssh
/qubes-audio-domain-xid = 0
/qubes-base-template = debian-12
/qubes-block-devices =
/qubes-debug-mode = 0
/qubes-gateway = <gateway>
/qubes-gui-domain-xid = 0
/qubes-gui-enabled = True
/qubes-gui-videoram-min = 1000
/qubes-gui-videoram-overhead = 2000
/qubes-ip = <ip>
/qubes-mac = 00:16:3e:5e:6c:00
/qubes-netmask = 255.255.255.255
/qubes-primary-dns = 10.139.1.1
/qubes-secondary-dns = 10.139.1.2
/qubes-service/app-dispvm.firefox = 1
/qubes-service/cups = 1
/qubes-service/meminfo-writer = 0
/qubes-service/qubes-update-check = 0
/qubes-service/tracker = 0
/qubes-timezone = Europe/Berlin
/qubes-usb-devices =
/qubes-vm-persistence = rw-only
/qubes-vm-type = AppVM
/qubes-vm-updateable = False
/type = AppVM
/vm-config/COLOUR = green
`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
	must(t, s.Core.SetFeature(work, "anon-timezone", "1"))
	must(t, s.Core.SetFeature(work, "gui", ""))
	got = NewSurvey(s.Core.View(), Host{Timezone: "Europe/Berlin"}).Of(lookup(t, s, work))
	if zone, ok := got["/qubes-timezone"]; ok || got["/qubes-gui-enabled"] != "False" {
		t.Errorf("zone %q, gui %s", zone, got["/qubes-gui-enabled"])
	}
}

func TestKeysOfANetVM(t *testing.T) {
	s, net, work := system(t)
	h := Host{Now: time.Unix(1000, 0), Firewall: func(q core.Qube) []firewall.Rule {
		rules, err := firewall.Parse("action=accept dst4=1.2.3.0/24\naction=accept dst6=fd00::/8\naction=accept expire=999\naction=drop comment=rest\n")
		must(t, err)
		return rules
	}}
	if keys := NewSurvey(s.Core.View(), h).Of(lookup(t, s, net)); keys["/connected-ips"] != "" || keys["/qubes-vm-type"] != "NetVM" {
		t.Error(lines(keys))
	}
	must(t, s.Core.SetFeature(work, "net.fake-ip", "192.168.1.5"))
	start(t, s, work) // and its netvm before, when the core does so
	q := lookup(t, s, work)
	keys := NewSurvey(s.Core.View(), h).Of(lookup(t, s, net))
	for path := range keys {
		if !strings.Contains(path, "ip") && !strings.HasPrefix(path, "/qubes-firewall") && !strings.HasPrefix(path, "/qubes-netvm") {
			delete(keys, path)
		}
	}
	want := `/connected-ips = 192.168.1.5
/connected-ips6 =
/mapped-ip/<ip>/visible-gateway = <gateway>
/mapped-ip/<ip>/visible-ip = 192.168.1.5
/qubes-firewall/<ip> =
/qubes-firewall/<ip>/0000 = action=accept dst4=1.2.3.0/24
/qubes-firewall/<ip>/0003 = action=drop
/qubes-firewall/<ip>/policy = drop
/qubes-netvm-gateway = <gateway>
/qubes-netvm-netmask = 255.255.255.255
/qubes-netvm-network = <gateway>
/qubes-netvm-primary-dns = 10.139.1.1
/qubes-netvm-secondary-dns = 10.139.1.2
`
	text := strings.ReplaceAll(lines(keys), q.Property("ip"), "<ip>")
	text = strings.ReplaceAll(text, lookup(t, s, net).Property("ip"), "<gateway>")
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
}

func TestOwnKeys(t *testing.T) {
	s := coretest.NewSystem(t)
	must(t, s.Core.SetFeature(qube.Dom0UUID, "service.guivm", "1"))
	must(t, s.Core.SetFeature(qube.Dom0UUID, "vm-config.X", "y"))
	must(t, s.Core.SetProperty(qube.Dom0UUID, "keyboard_layout", "de++"))
	admin, _ := s.Core.View().Named(qube.Dom0)
	want := "/keyboard-layout = de++\n/name = dom0\n/qubes-service/guivm = 1\n/qubes-timezone = Etc/UTC\n/type = AdminVM\n/vm-config/X = y\n"
	if diff := cmp.Diff(want, lines(Own(admin, Host{Timezone: "Etc/UTC"}))); diff != "" {
		t.Error(diff)
	}
}

// router keeps what is said.
type router struct {
	mu   sync.Mutex
	said map[vchan.Domain]map[string]string
	up   func(control.Qube)
	news chan struct{}
}

func (r *router) Describe(f func(control.Qube)) { r.mu.Lock(); r.up = f; r.mu.Unlock() }
func (r *router) Say(d vchan.Domain, keys map[string]string) {
	r.mu.Lock()
	r.said[d] = maps.Clone(keys)
	r.mu.Unlock()
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// await waits until a key of a domain has a value.
func (r *router) await(t *testing.T, d vchan.Domain, path, value string) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		r.mu.Lock()
		got, ok := r.said[d][path]
		r.mu.Unlock()
		if got == value && (ok || value == "") {
			return
		}
		select {
		case <-r.news:
		case <-limit:
			t.Fatalf("%s is %q, never %q", path, got, value)
		}
	}
}

func TestDatabasesFollowTheQubes(t *testing.T) {
	s, net, work := system(t)
	start(t, s, net)
	r := &router{said: map[vchan.Domain]map[string]string{}, news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	o := Options{Core: s.Core, Router: r, Timezone: "UTC", Log: slog.New(slog.DiscardHandler)}
	go func() { done <- Follow(ctx, o) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	r.await(t, 0, "/name", "dom0")
	domain := func(id qube.UUID) vchan.Domain { return vchan.Domain(lookup(t, s, id).XID()) }
	r.await(t, domain(net), "/name", "sys-net")

	// A qube that comes up is described before its machine runs.
	r.mu.Lock()
	up := r.up
	r.mu.Unlock()
	up(control.Qube{Domain: 0xf000, UUID: string(work)})
	r.await(t, 0xf000, "/name", "work")
	seed := r.said[0xf000]["/qubes-random-seed"]
	if len(seed) != 88 { // base64 of 64 bytes
		t.Errorf("seed %q", seed)
	}
	up(control.Qube{Domain: 0xf000, UUID: string(work)})
	if r.said[0xf000]["/qubes-random-seed"] != seed {
		t.Error("another seed in the same run")
	}

	// One that runs is told of changes: its own, and those of others.
	start(t, s, work)
	r.await(t, domain(work), "/name", "work")
	ip := lookup(t, s, work).Property("ip")
	r.await(t, domain(net), "/connected-ips", ip)
	r.await(t, domain(net), "/qubes-firewall/"+ip+"/0000", "action=accept")
	must(t, s.Core.SetFeature(work, "vm-config.X", "1"))
	r.await(t, domain(work), "/vm-config/X", "1")
	must(t, s.Core.RemoveFeature(work, "vm-config.X"))
	r.await(t, domain(work), "/vm-config/X", "")
	must(t, s.Core.SetProperty(qube.Dom0UUID, "keyboard_layout", "fr++"))
	r.await(t, domain(work), "/keyboard-layout", "fr++")
	r.await(t, 0, "/keyboard-layout", "fr++")

	must(t, s.Core.SetFirewall(ctx, work, []firewall.Rule{{Action: firewall.Drop}}))
	r.await(t, domain(net), "/qubes-firewall/"+ip+"/0000", "action=drop")
	must(t, s.Done(s.Core.Shutdown(context.Background(), work, false)))
	r.await(t, domain(net), "/connected-ips", "")
}

func TestZone(t *testing.T) {
	etc := t.TempDir()
	if z := Zone(etc); z != "Etc/UTC" {
		t.Errorf("zone %q of nothing", z)
	}
	must(t, os.WriteFile(filepath.Join(etc, "localtime"), nil, 0o644))
	if z := Zone(etc); z != "" {
		t.Errorf("zone %q of a file without a name", z)
	}
	must(t, os.Remove(filepath.Join(etc, "localtime")))
	must(t, os.WriteFile(filepath.Join(etc, "timezone"), []byte("Europe/Paris\n"), 0o644))
	if z := Zone(etc); z != "Europe/Paris" {
		t.Errorf("zone %q", z)
	}
	zone := filepath.Join(etc, "zoneinfo", "Asia", "Tokyo")
	must(t, os.MkdirAll(filepath.Dir(zone), 0o755))
	must(t, os.WriteFile(zone, nil, 0o644))
	must(t, os.Symlink(zone, filepath.Join(etc, "localtime")))
	if z := Zone(etc); z != "Asia/Tokyo" {
		t.Errorf("zone %q", z)
	}
}

// BenchmarkSurvey: what one change of a qube costs with many running.
func BenchmarkSurvey(b *testing.B) {
	s := coretest.NewSystem(b)
	for i := range 100 {
		id, err := s.NewQube("q"+strconv.Itoa(i), "red")
		if err == nil {
			err = s.Done(s.Core.Start(id))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	v := s.Core.View()
	qubes := v.Qubes()
	for b.Loop() {
		y := NewSurvey(v, Host{Firewall: func(core.Qube) []firewall.Rule { return nil }})
		for _, q := range qubes {
			y.Of(q)
		}
	}
}
