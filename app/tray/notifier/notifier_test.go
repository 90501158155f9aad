package notifier

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
	host := NewHost(b.ctx, b.dial(), func(now []Shown) {
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
	b.run(func(context.Context) error { go func() { <-b.ctx.Done() }(); return nil })
	go host.Run()
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

var _ = []any{fmt.Sprint, reflect.DeepEqual, slices.Equal[[]int], strings.Contains}
