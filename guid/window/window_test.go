package window

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"unicode/utf8"

	"cubicle/guid/wire"

	"github.com/google/go-cmp/cmp"
)

func configure(x, y int32, w, h uint32) wire.Configure {
	return wire.Configure{X: x, Y: y, Width: w, Height: h}
}

// The table of spec/gui-protocol.md §9, line by line.
func TestConfigureStateMachine(t *testing.T) {
	s, sc, _, out := newTestSession(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	sent := func(what string, want ...wire.Message) {
		t.Helper()
		if diff := cmp.Diff(want, out.take()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	must(s.Handle(1, wire.Create{X: 10, Y: 10, Width: 100, Height: 100}))
	sent("create")
	must(s.LocalConfigure(1, Geometry{10, 10, 100, 100}))
	sent("L = G")
	must(s.LocalConfigure(1, Geometry{20, 10, 100, 100}))
	sent("L ≠ G", configure(20, 10, 100, 100))
	must(s.LocalConfigure(1, Geometry{30, 10, 100, 100}))
	sent("L ≠ G while we wait")
	must(s.Handle(1, configure(20, 10, 100, 100)))
	sent("C ≠ G while we wait", configure(30, 10, 100, 100))
	if got := sc.windows[1].place.X; got != 10 {
		t.Errorf("a CONFIGURE while we wait moved the window to %d", got)
	}
	must(s.Handle(1, configure(30, 10, 100, 100)))
	sent("agreement")
	must(s.Handle(1, configure(30, 10, 100, 100)))
	sent("C = G")
	must(s.Handle(1, configure(40, 50, 60, 70)))
	sent("C ≠ G")
	if got, want := sc.windows[1].place, (Geometry{40, 50, 60, 70}); got != want {
		t.Errorf("the window is at %+v, want %+v", got, want)
	}
	must(s.Handle(2, wire.Create{X: 1, Y: 1, Width: 9, Height: 9}))
	must(s.Handle(2, wire.Dock{}))
	must(s.Handle(2, configure(5, 5, 500, 500)))
	sent("a docked window does not move itself", configure(1, 1, 9, 9))
}

func TestMenusAreForcedOnScreen(t *testing.T) {
	b := Bounds{Size{1000, 800}, Rect{0, 20, 1000, 740}, 4}
	for _, tc := range []struct{ in, want Geometry }{
		{Geometry{100, 100, 50, 50}, Geometry{100, 100, 50, 50}},
		{Geometry{-10, 100, 50, 50}, Geometry{4, 100, 50, 50}},
		{Geometry{100, 0, 50, 50}, Geometry{100, 24, 50, 50}},
		{Geometry{990, 790, 50, 50}, Geometry{946, 706, 50, 50}},
		{Geometry{0, 0, 5000, 5000}, Geometry{4, 24, 992, 732}},
		{Geometry{1004, 100, 50, 50}, Geometry{1004, 100, 50, 50}}, // entirely off: nothing shows
		{Geometry{1003, 100, 50, 50}, Geometry{946, 100, 50, 50}},  // its frame would show
		{Geometry{-54, 100, 50, 50}, Geometry{-54, 100, 50, 50}},
	} {
		if got := b.force(tc.in); got != tc.want {
			t.Errorf("force(%+v) = %+v, want %+v", tc.in, got, tc.want)
		}
	}
}

func TestOverrideCannotBeGainedWhileMapped(t *testing.T) {
	s, sc, _, _ := newTestSession(t)
	for _, m := range []wire.Message{wire.Create{Width: 10, Height: 10}, wire.Map{}, wire.Map{OverrideRedirect: 1},
		wire.Configure{Width: 11, Height: 11, OverrideRedirect: 1}} {
		if err := s.Handle(1, m); err != nil {
			t.Fatal(err)
		}
	}
	if sc.windows[1].override {
		t.Error("a mapped window became borderless")
	}
}

// A menu is made in a corner, moved, and shown, all before dom0 can answer.
func TestMenuThatMovesBeforeItIsShown(t *testing.T) {
	s, sc, _, out := newTestSession(t)
	for _, m := range []wire.Message{
		wire.Create{Width: 100, Height: 50, OverrideRedirect: 1}, configure(300, 200, 120, 60), wire.Map{OverrideRedirect: 1},
	} {
		if err := s.Handle(1, m); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := sc.windows[1].place, (Geometry{300, 200, 120, 60}); got != want {
		t.Errorf("the menu is at %+v, want %+v", got, want)
	}
	if sent := out.take(); len(sent) != 0 {
		t.Errorf("the agent is told %+v", sent)
	}
}

func TestTitles(t *testing.T) {
	for _, tc := range []struct {
		in          string
		ascii, utf8 string
	}{
		{"plain", "plain", "plain"},
		{"caf\u00e9", "caf__", "caf\u00e9"},
		{"long\u2026", "long...", "long\u2026"},
		{"\u2026\u2026", "___...", "\u2026\u2026"},
		{"tab\tbell\a\x7f", "tab_bell__", "tab_bell__"},
		{"\u202eevil\u2069", "___evil___", "_evil_"},
		{"\u0085\u009b31m", "____31m", "__31m"},
		{"\xc0\xaf\xed\xa0\x80\xff", "______", "______"},
		{"\u200b\ufeff\U000e0041", "__________", "___"},
	} {
		if got := cleanText([]byte(tc.in), false).String(); got != tc.ascii {
			t.Errorf("%q in ASCII: %q, want %q", tc.in, got, tc.ascii)
		}
		if got := cleanText([]byte(tc.in), true).String(); got != tc.utf8 {
			t.Errorf("%q in UTF-8: %q, want %q", tc.in, got, tc.utf8)
		}
	}
	full := bytes.Repeat([]byte{'a'}, 128) // no NUL at all
	if got := firstText(full); len(got) != 127 {
		t.Errorf("%d bytes of a text without an end", len(got))
	}
}

func TestManyRectanglesOfDamageBecomeFew(t *testing.T) {
	s, sc, _, _ := newTestSession(t)
	msgs := []wire.Message{wire.Create{Width: 200, Height: 200}, wire.Map{},
		wire.WindowDump{Kind: wire.DumpRegion, Width: 200, Height: 200, BPP: 32, Stride: 800}}
	for i := range 100 {
		msgs = append(msgs, wire.ShmImage{X: int32(i), Y: int32(i), Width: 2, Height: 2}, wire.ShmImage{X: int32(i), Y: int32(i), Width: 1, Height: 1})
	}
	for _, m := range msgs {
		if err := s.Handle(1, m); err != nil {
			t.Fatal(err)
		}
	}
	s.Flush()
	if n := sc.windows[1].painted; n == 0 || n > maxDamage {
		t.Errorf("%d copies, want 1 to %d", n, maxDamage)
	}
	s.Flush()
	if n := sc.windows[1].painted; n > maxDamage {
		t.Error("nothing has changed and yet it is painted")
	}
}

// Many large windows that change at once are painted bit by bit.
func TestOneFlushPaintsSoMuch(t *testing.T) {
	s, sc, r, _ := newTestSession(t)
	const windows, width, height = 20, 4000, 1000
	for id := range wire.WindowID(windows) {
		for _, m := range []wire.Message{wire.Create{Width: width, Height: height}, wire.Map{}} {
			if err := s.Handle(id+1, m); err != nil {
				t.Fatal(err)
			}
		}
		b := &image{Image: Image{Stride: 4 * width, Size: Size{width, height}}}
		r.open = append(r.open, b)
		s.windows[id+1].buffer = b
		s.LocalExpose(id+1, Rect{0, 0, width, height})
	}
	painted := func() (n int) {
		for _, w := range sc.windows {
			n += w.painted
		}
		return n
	}
	flushes := 0
	for s.Flush() {
		flushes++
	}
	if painted() != windows || flushes < 4 || flushes > 6 {
		t.Errorf("%d windows were painted in %d turns", painted(), flushes)
	}
}

func TestWindowsAreLimited(t *testing.T) {
	s, _, _, _ := newTestSession(t)
	for id := range wire.WindowID(maxWindows) {
		if err := s.Handle(id, wire.Create{Width: 1, Height: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Handle(maxWindows, wire.Create{Width: 1, Height: 1}); err == nil {
		t.Error("one window too many was made")
	}
}

func FuzzRegionDump(f *testing.F) {
	f.Add(uint32(10), uint32(10), uint64(0), uint32(40))
	f.Add(uint32(1), uint32(1), uint64(math.MaxUint64-3), uint32(4))
	f.Add(uint32(16384), uint32(6144), uint64(4), uint32(65536))
	f.Add(uint32(0x40000000), uint32(4), uint64(0), uint32(0))
	f.Fuzz(func(t *testing.T, w, h uint32, offset uint64, stride uint32) {
		i, err := CheckRegionDump(wire.WindowDump{Kind: wire.DumpRegion, Width: w, Height: h, Offset: offset, Stride: stride}, regionBytes)
		if err != nil {
			return
		}
		last := i.Offset + uint64(i.Stride)*uint64(i.Size.Height)
		if i.Offset > regionBytes || last > regionBytes || i.Stride < 4*i.Size.Width || i.Stride/4 > math.MaxUint16 || i.Size.Height < 1 {
			t.Fatalf("%+v was let through", i)
		}
	})
}

func FuzzText(f *testing.F) {
	f.Add([]byte("\u202e\xff caf\u00e9\u2026"), true)
	f.Add([]byte("a\x00b"), false)
	f.Fuzz(func(t *testing.T, b []byte, allowed bool) {
		text := cleanText(b, allowed).String()
		if !utf8.ValidString(text) {
			t.Fatalf("%q is no UTF-8", text)
		}
		for _, r := range text {
			if r < 0x20 || r >= 0x7f && (!allowed || !showable(r)) {
				t.Fatalf("%q has %q", text, r)
			}
		}
	})
}

// FuzzSession runs a whole session without a display: messages of the agent,
// mixed with events of dom0's screen. The fake screen fails the test when it
// is asked for what must never be asked.
func FuzzSession(f *testing.F) {
	const local = 200 // first byte of a step: from here on an event of the screen
	seed := func(parts ...[]byte) { f.Add(bytes.Join(parts, nil)) }
	msg := func(id wire.WindowID, m wire.Message) []byte { return append([]byte{0}, wire.Append(nil, id, m)...) }
	event := func(kind byte, id uint32, values ...int16) []byte {
		b := binary.LittleEndian.AppendUint32([]byte{local + kind}, id)
		for i := range 4 {
			v := int16(0)
			if i < len(values) {
				v = values[i]
			}
			b = binary.LittleEndian.AppendUint16(b, uint16(v))
		}
		return b
	}
	create, dump := wire.Create{X: 5, Y: 5, Width: 50, Height: 40, OverrideRedirect: 1}, wire.WindowDump{Kind: wire.DumpRegion, Width: 50, Height: 40, Stride: 200}
	seed(msg(1, create), msg(1, wire.Map{OverrideRedirect: 1}), msg(1, dump), msg(1, wire.ShmImage{Width: 9, Height: 9}), event(0, 1, 700, 750, 60, 60),
		msg(1, wire.Configure{X: 9, Y: 9, Width: 990, Height: 790}), event(1, 1, 1), event(2, 1, 3), event(3, 1, 0, 0, 50, 40), msg(1, wire.Unmap{}), event(1, 1, 0), msg(1, wire.Destroy{}))
	seed(msg(0, create), msg(0, dump), msg(2, create), msg(2, wire.Map{TransientFor: 2}), msg(2, wire.ShmImage{Width: 9, Height: 9}), msg(3, create), msg(3, wire.Map{TransientFor: 2}), msg(2, wire.Destroy{}), msg(0, wire.Destroy{}))
	seed(msg(1, create), msg(1, wire.WindowFlags{Set: 7}), msg(1, wire.Map{}), msg(1, wire.WindowFlags{Set: 1}), event(2, 1, 8), msg(1, wire.WindowFlags{Unset: 1}), msg(1, wire.Dock{}), msg(1, wire.Cursor{Cursor: 0x102}))
	f.Fuzz(func(t *testing.T, script []byte) {
		s, sc, _, _ := newTestSession(t)
		defer s.Close()
		r := bytes.NewReader(script)
		for range 200 {
			kind, err := r.ReadByte()
			if err != nil {
				return
			}
			if kind < local {
				in := wire.NewReader(r, wire.ToDaemon, wire.Current)
				before := r.Len()
				id, m, err := in.Next()
				if err != nil {
					return
				}
				// The reader reads ahead: go back to behind this message.
				used := len(wire.Append(nil, id, m))
				r.Seek(int64(len(script)-before+used), 0)
				if s.Handle(id, m) != nil {
					return
				}
			} else {
				var e struct {
					ID uint32
					V  [4]int16
				}
				if binary.Read(r, binary.LittleEndian, &e) != nil {
					return
				}
				id := wire.WindowID(e.ID)
				switch kind - local {
				case 0:
					err = s.LocalConfigure(id, Geometry{int(e.V[0]), int(e.V[1]), max(1, int(e.V[2])), max(1, min(int(e.V[3]), wire.MaxWindowHeight))})
				case 1:
					err = s.LocalMap(id, e.V[0]&1 != 0)
				case 2:
					v := e.V[0]
					err = s.LocalState(id, State{v&1 != 0, v&2 != 0, v&4 != 0, v&8 != 0})
				case 3:
					s.LocalExpose(id, Rect{int(e.V[0]), int(e.V[1]), int(e.V[2]), int(e.V[3])})
				default:
					err = s.LocalFocus(id, FocusIn, byte(e.V[0]), byte(e.V[1]))
				}
				if err != nil {
					t.Fatalf("an event of dom0 ended the session: %v", err)
				}
			}
			s.Flush()
			if s.Windows() != len(sc.windows) {
				t.Fatalf("%d windows, the screen has %d", s.Windows(), len(sc.windows))
			}
		}
	})
}
