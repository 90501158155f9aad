package notifier

import (
	"context"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/godbus/dbus/v5"

	"cubicle/app/dom0/dom0test"
)

// patience bounds every wait: far above what a loaded machine needs.
const patience = 90 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// bus is a session of the test's own.
type bus struct {
	t       *testing.T
	address string
	ctx     context.Context
}

func newBus(t *testing.T) *bus {
	t.Helper()
	address, stop, err := dom0test.StartBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return &bus{t, address, t.Context()}
}

func (b *bus) dial() *dbus.Conn {
	b.t.Helper()
	conn, err := dbus.Connect(b.address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

// run runs a part until the test ends, and holds it to end without an error.
func (b *bus) run(part func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

func dot(size int, c color.NRGBA) image.Image {
	img := image.NewNRGBA(image.Rect(0, 0, size, size))
	for i := range size * size {
		img.SetNRGBA(i%size, i/size, c)
	}
	return img
}

var teal = color.NRGBA{R: 0x10, G: 0x80, B: 0x70, A: 0xff}

func (b *bus) item(face Face) *Item {
	b.t.Helper()
	i, err := NewItem(b.dial(), face)
	if err != nil {
		b.t.Fatal(err)
	}
	b.run(i.Run)
	return i
}

// register is a watcher of ours and the last that it has told.
type register struct {
	w    *Watcher
	mu   sync.Mutex
	last Register
	stop func()
}

func (r *register) get() Register {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (b *bus) watcher(also func(Register)) *register {
	b.t.Helper()
	r := &register{}
	w, err := NewWatcher(b.dial(), func(now Register) {
		r.mu.Lock()
		r.last = now
		r.mu.Unlock()
		if also != nil {
			also(now)
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	r.w = w
	r.stop = b.run(w.Run)
	return r
}

func (b *bus) property(conn *dbus.Conn, name string) any {
	b.t.Helper()
	v, err := conn.Object(WatcherName, watcherPath).GetProperty(watcherFace + "." + name)
	if err != nil {
		b.t.Fatal(err)
	}
	return v.Value()
}

func TestAnIconIsSeenAndItsMenuWorks(t *testing.T) {
	b := newBus(t)
	var mu sync.Mutex
	var icons []Shown
	hostCtx, stopHost := context.WithCancel(b.ctx)
	host := NewHost(hostCtx, b.dial(), func(now []Shown) {
		mu.Lock()
		icons = now
		mu.Unlock()
	})
	first := func() (s Shown) {
		mu.Lock()
		defer mu.Unlock()
		if len(icons) > 0 {
			s = icons[0]
		}
		return s
	}
	b.run(func(context.Context) error { return host.Run() })
	t.Cleanup(stopHost)
	b.watcher(func(r Register) { host.Show(r.Items) })
	item := b.item(Face{ID: "test", Title: "Te\u202est\n", Pixmaps: []image.Image{dot(22, color.NRGBA{}), dot(48, teal)}})
	eventually(t, "the icon", func() bool { return first().Title == "Test" })
	s := first()
	if !s.IsMenu || s.Menu != menuPath || s.Icon.Image == nil || s.Icon.Image.Bounds().Dx() != 48 || s.Icon.Image.At(3, 3) != color.Color(teal) {
		t.Fatalf("%+v", s)
	}

	clicked := make(chan string, 1)
	menu := func(memory string) []Entry {
		return []Entry{
			{Key: "work", Label: "work_1 " + memory, Children: []Entry{
				{Key: "kill", Label: "Kill", Activate: func() { clicked <- "kill" }},
				{Key: "off", Label: "Off", Disabled: true, Activate: func() { clicked <- "off" }},
			}},
			{Key: "line", Separator: true},
			{Key: "on", Label: "On", Checkable: true, Checked: true},
		}
	}
	if err := item.Menu().Set(menu("1 MB")); err != nil {
		t.Fatal(err)
	}
	menus := make(chan []Entry, 10)
	b.run(func(ctx context.Context) error { return host.FollowMenu(ctx, s, func(e []Entry) { menus <- e }) })
	got := <-menus
	if len(got) != 3 || got[0].Label != "work_1 1 MB" || len(got[0].Children) != 2 || !got[1].Separator || !got[2].Checked || !got[0].Children[1].Disabled {
		t.Fatalf("%+v", got)
	}
	got[0].Children[1].Activate()
	got[0].Children[0].Activate()
	if what := <-clicked; what != "kill" {
		t.Errorf("%s was clicked", what)
	}
	if err := item.Menu().Set(menu("2 MB")); err != nil {
		t.Fatal(err)
	}
	again := <-menus
	if again[0].Label != "work_1 2 MB" || again[0].Key != got[0].Key {
		t.Errorf("%+v after %+v", again[0], got[0])
	}
	if err := item.SetIcon([]image.Image{dot(64, color.NRGBA{R: 1, A: 255})}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new icon", func() bool { return first().Icon.Image.Bounds().Dx() == 64 })
}

func TestWatcherProtocol(t *testing.T) {
	b := newBus(t)
	client := b.dial()
	signals := make(chan *dbus.Signal, 20)
	client.Signal(signals)
	if err := client.AddMatchSignal(dbus.WithMatchInterface(watcherFace)); err != nil {
		t.Fatal(err)
	}
	heard := func(want string, values ...any) {
		t.Helper()
		for {
			select {
			case s := <-signals:
				if s.Name == watcherFace+"."+want {
					if !slices.Equal(s.Body, values) {
						t.Errorf("%s says %v, want %v", want, s.Body, values)
					}
					return
				}
			case <-time.After(patience):
				t.Fatalf("no signal %s", want)
			}
		}
	}
	r := b.watcher(nil)
	eventually(t, "the watcher", func() bool { return r.get().Visible() })
	heard("StatusNotifierHostRegistered")
	if b.property(client, "IsStatusNotifierHostRegistered") != true || b.property(client, "ProtocolVersion") != int32(0) {
		t.Error("the properties lie")
	}
	register := func(conn *dbus.Conn, service string) error {
		return conn.Object(WatcherName, watcherPath).Call(watcherFace+".RegisterStatusNotifierItem", 0, service).Err
	}
	byPath, byName := b.dial(), b.dial()
	if err := register(byPath, "/org/ayatana/NotificationItem/x"); err != nil {
		t.Fatal(err)
	}
	service := byPath.Names()[0] + "/org/ayatana/NotificationItem/x"
	heard("StatusNotifierItemRegistered", service)
	if _, err := byName.RequestName("org.kde.StatusNotifierItem-7-1", 0); err != nil {
		t.Fatal(err)
	}
	if err := register(byName, "org.kde.StatusNotifierItem-7-1"); err != nil {
		t.Fatal(err)
	}
	heard("StatusNotifierItemRegistered", "org.kde.StatusNotifierItem-7-1/StatusNotifierItem")
	if err := register(byName, "org.kde.StatusNotifierItem-7-1"); err != nil {
		t.Fatal(err) // twice is once
	}
	for _, bad := range []string{"org.kde.StatusNotifierItem-7-1", "org.nobody", "/a//b", "", WatcherName} {
		if err := register(byPath, bad); err == nil {
			t.Errorf("%q was registered", bad)
		}
	}
	if got := b.property(client, "RegisteredStatusNotifierItems"); !slices.Equal(got.([]string), []string{service, "org.kde.StatusNotifierItem-7-1/StatusNotifierItem"}) {
		t.Errorf("%q", got)
	}
	if _, err := byName.ReleaseName("org.kde.StatusNotifierItem-7-1"); err != nil {
		t.Fatal(err)
	}
	heard("StatusNotifierItemUnregistered", "org.kde.StatusNotifierItem-7-1/StatusNotifierItem")
	byPath.Close()
	heard("StatusNotifierItemUnregistered", service)
	eventually(t, "an empty register", func() bool { return len(r.get().Items) == 0 })
	r.stop()
	var owned bool
	if err := client.BusObject().Call(busName+".NameHasOwner", 0, WatcherName).Store(&owned); err != nil || owned {
		t.Errorf("the name is still owned: %v, %v", owned, err)
	}
}

func TestOurWatcherGivesWay(t *testing.T) {
	b := newBus(t)
	r := b.watcher(nil)
	eventually(t, "our watcher", func() bool { return r.get().Visible() })
	item := b.item(Face{ID: "test"})
	eventually(t, "the icon", func() bool { return len(r.get().Items) == 1 })

	// A host without a watcher of its own: it shows what is registered here.
	host := b.dial()
	if err := host.Object(WatcherName, watcherPath).Call(watcherFace+".RegisterStatusNotifierHost", 0, "x").Err; err != nil {
		t.Fatal(err)
	}
	if now := r.get(); !now.Owner || now.Visible() || len(now.Items) != 1 {
		t.Errorf("with another host: %+v", now)
	}
	host.Close()
	eventually(t, "our own host again", func() bool { return r.get().Visible() })

	// A panel whose watcher waits in the queue, as xfce4-panel's does.
	queued := b.dial()
	registered := make(chan string, 1)
	err := queued.ExportMethodTable(map[string]any{"RegisterStatusNotifierItem": func(path string) *dbus.Error {
		registered <- path
		return nil
	}}, watcherPath, watcherFace)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := queued.RequestName(WatcherName, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of our office", func() bool { return !r.get().Owner })
	if path := <-registered; path != itemPath {
		t.Errorf("%q was registered with the panel", path)
	}
	queued.Close()
	eventually(t, "our watcher again, with the icon", func() bool { now := r.get(); return now.Visible() && len(now.Items) == 1 })
	if err := item.SetTip("still there"); err != nil {
		t.Error(err)
	}
}

// An entry keeps its number when another one comes before it, and a change of
// a text is no change of the layout.
func TestMenuChangesWhatChanged(t *testing.T) {
	b := newBus(t)
	item := b.item(Face{})
	client := b.dial()
	signals := make(chan *dbus.Signal, 20)
	client.Signal(signals)
	if err := client.AddMatchSignal(dbus.WithMatchInterface(menuFace)); err != nil {
		t.Fatal(err)
	}
	object := client.Object(item.conn.Names()[0], menuPath)
	children := func() (list []layout) {
		t.Helper()
		var revision uint32
		var root layout
		if err := object.Call(menuFace+".GetLayout", 0, int32(0), int32(-1), []string{}).Store(&revision, &root); err != nil {
			t.Fatal(err)
		}
		for _, v := range root.Children {
			l, ok := layoutOf(v.Value())
			if !ok {
				t.Fatalf("%v", v)
			}
			list = append(list, l)
		}
		return list
	}
	set := func(want string, entries ...Entry) {
		t.Helper()
		if err := item.Menu().Set(entries); err != nil {
			t.Fatal(err)
		}
		s := <-signals
		for strings.HasPrefix(s.Name, busName) {
			s = <-signals
		}
		if s.Name != menuFace+"."+want {
			t.Errorf("%s, want %s", s.Name, want)
		}
	}
	set("LayoutUpdated", Entry{Key: "b", Label: "b"})
	before := children()[0].ID
	set("LayoutUpdated", Entry{Key: "a", Label: "a"}, Entry{Key: "b", Label: "b"})
	if now := children(); len(now) != 2 || now[1].ID != before {
		t.Errorf("%+v, had %d", now, before)
	}
	set("ItemsPropertiesUpdated", Entry{Key: "a", Label: "a"}, Entry{Key: "b", Label: "b_c"})
	if got := text(children()[1].Properties, "label"); got != "b__c" {
		t.Errorf("label %q", got)
	}
	if err := item.Menu().Set([]Entry{{Key: "a", Label: "a"}, {Key: "b", Label: "b_c"}}); err != nil {
		t.Fatal(err)
	}
	set("LayoutUpdated", Entry{Key: "b", Label: "b_c"}) // and nothing was said in between
	for method, arguments := range map[string][]any{
		"Event":       {int32(99), "clicked", dbus.MakeVariant(0), uint32(0)},
		"GetLayout":   {int32(99), int32(-1), []string{}},
		"AboutToShow": {int32(99)},
		"GetProperty": {before, "nothing"},
	} {
		if object.Call(menuFace+"."+method, 0, arguments...).Err == nil {
			t.Errorf("%s of what is not there", method)
		}
	}
}

func TestForeignTextsAreCleaned(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                     "plain",
		" a\nb\tc ":                 "a b c",
		"\u202eevil\u200b":          "evil",
		"\xff\xfe":                  "",
		strings.Repeat("x", 100000): strings.Repeat("x", maxText/2-1) + "…" + strings.Repeat("x", maxText/2),
	} {
		if got := clean(text); got != want {
			t.Errorf("clean(%.20q) = %q", text, got)
		}
	}
	for label, want := range map[string]string{"_File": "File", "a__b": "a_b", "end_": "end", "": ""} {
		if got := unmark(label); got != want {
			t.Errorf("unmark(%q) = %q", label, got)
		}
		if got := unmark(mark(want)); got != want {
			t.Errorf("unmark(mark(%q)) = %q", want, got)
		}
	}
}

func TestForeignMenusAreBounded(t *testing.T) {
	var deep any = []any{int32(1), map[string]dbus.Variant{}, []dbus.Variant{}}
	for range 100 {
		deep = []any{int32(1), map[string]dbus.Variant{"label": dbus.MakeVariant("x")}, []dbus.Variant{dbus.MakeVariant(deep)}}
	}
	many := layout{}
	for i := range 3 * maxEntries {
		many.Children = append(many.Children, dbus.MakeVariant([]any{int32(i), map[string]dbus.Variant{"label": dbus.MakeVariant(7), "icon-data": dbus.MakeVariant(make([]byte, 1))}, []dbus.Variant{}}))
	}
	many.Children = append(many.Children, dbus.MakeVariant("no layout"))
	count := func(l layout) (n, depth int) {
		left := maxEntries
		var walk func([]Entry) int
		walk = func(list []Entry) (below int) {
			for _, e := range list {
				n++
				below = max(below, 1+walk(e.Children))
			}
			return below
		}
		return n, walk(entries(l, maxDepth, &left, func(int32) func() { return func() {} }))
	}
	root, ok := layoutOf(deep)
	if !ok {
		t.Fatal("no layout")
	}
	if n, depth := count(root); n != maxDepth || depth != maxDepth {
		t.Errorf("%d entries, %d deep", n, depth)
	}
	if n, _ := count(many); n != maxEntries {
		t.Errorf("%d entries", n)
	}
}

func TestIconsByName(t *testing.T) {
	share := t.TempDir()
	folder := filepath.Join(share, "icons/hicolor/48x48/apps")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"good.png": 10, "huge.png": maxFile + 1, "other.txt": 1} {
		if err := os.WriteFile(filepath.Join(folder, name), make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if icon, ok := named("good", "", []string{share}); !ok || len(icon.File) != 10 {
		t.Errorf("%+v %v", icon, ok)
	}
	if _, ok := named("good", filepath.Join(share, "icons"), nil); !ok {
		t.Error("not found in the program's own folder")
	}
	for _, bad := range []string{"", "huge", "../apps/good", ".hidden", filepath.Join(folder, "other.txt"), "/dev/zero"} {
		if _, ok := named(bad, "", []string{share}); ok {
			t.Errorf("%q was read", bad)
		}
	}
}

func FuzzPixmap(f *testing.F) {
	f.Add(int32(1), int32(1), []byte{1, 2, 3, 4})
	f.Add(int32(-1), int32(1<<30), []byte{})
	f.Add(int32(1<<16), int32(1<<16), []byte{0})
	f.Fuzz(func(t *testing.T, width, height int32, data []byte) {
		img := best(pixmaps([][]any{{width, height, data}}))
		if img != nil && len(data) != 4*int(width)*int(height) {
			t.Errorf("%d×%d of %d bytes", width, height, len(data))
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("a\u202eb\x00c")
	f.Add(strings.Repeat("ä", 300))
	f.Fuzz(func(t *testing.T, text string) {
		got := clean(unmark(text))
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > maxText || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
