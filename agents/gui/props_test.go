package gui

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

func TestTitle(t *testing.T) {
	names := &atoms{utf8String: 500}
	utf := func(s string) x11.Property { return x11.Property{Type: 500, Format: 8, Data: []byte(s)} }
	latin := func(s string) x11.Property { return x11.Property{Type: x11.AtomString, Format: 8, Data: []byte(s)} }
	for _, c := range []struct {
		what    string
		net, wm x11.Property
		want    string
	}{
		{"EWMH wins", utf("neu"), latin("old"), "neu"},
		{"Latin-1", x11.Property{}, latin("t\xf6st"), "töst"},
		{"UTF-8 in WM_NAME", x11.Property{}, utf("töst"), "töst"},
		{"ill-formed", utf("a\xffb"), x11.Property{}, "a\uFFFDb"},
		{"two strings", utf("one\x00two"), x11.Property{}, "one"},
		{"words are no text", x11.Property{Format: 32, Data: []byte("abcd")}, x11.Property{Format: 32, Data: []byte("abcd")}, ""},
		{"none", x11.Property{}, x11.Property{}, ""},
	} {
		if got := title(c.net, c.wm, names); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func FuzzTitleField(f *testing.F) {
	f.Add("xterm")
	f.Add(strings.Repeat("ä", 64))
	f.Add(strings.Repeat("x", 126) + "€")
	f.Add("\x80\x80\x80" + strings.Repeat("\x80", 200))
	f.Fuzz(func(t *testing.T, s string) {
		field := titleField(s)
		if field[127] != 0 {
			t.Fatal("no NUL at the end")
		}
		got, _, _ := strings.Cut(string(field[:]), "\x00")
		if want := cutAtNUL(s); len(s) <= 127 && got != want {
			t.Errorf("%q became %q", want, got)
		}
		if utf8.ValidString(s) && !utf8.ValidString(got) {
			t.Errorf("%q was cut within a character: %q", s, got)
		}
	})
}

func TestSizeHints(t *testing.T) {
	words := make([]uint32, 18)
	words[0] = wire.HintPMinSize | wire.HintPResizeInc | wire.HintPBaseSize | 1<<9
	copy(words[5:], []uint32{30, 40, 0, 0, 6, 13})
	copy(words[15:], []uint32{4, 5})
	want := wire.WindowHints{Flags: wire.HintPMinSize | wire.HintPResizeInc | wire.HintPBaseSize,
		MinWidth: 34, MinHeight: 44, WidthInc: 6, HeightInc: 13, BaseWidth: 4, BaseHeight: 5}
	if diff := cmp.Diff(want, sizeHints(words)); diff != "" {
		t.Error(diff)
	}
	if got := sizeHints(words[:15]); got.Flags&wire.HintPBaseSize != 0 || got.BaseWidth != 0 || got.MinWidth != 30 {
		t.Errorf("of an old client: %+v", got)
	}
	if got := sizeHints(words[:14]); got != (wire.WindowHints{}) {
		t.Errorf("of a short property: %+v", got)
	}
}

func FuzzSizeHints(f *testing.F) {
	f.Add(uint32(0xffffffff), uint32(1), uint32(0xffffffff), uint32(0))
	f.Add(uint32(0x150), uint32(30), uint32(4), uint32(6))
	f.Fuzz(func(t *testing.T, flags, least, base, inc uint32) {
		words := make([]uint32, 18)
		words[0], words[5], words[9], words[15] = flags, least, inc, base
		h := sizeHints(words)
		if h.Flags&^flags != 0 {
			t.Errorf("flags %#x from %#x", h.Flags, flags)
		}
		if h.Flags&wire.HintPMinSize != 0 && h.MinWidth < least {
			t.Errorf("the minimum fell from %d to %d", least, h.MinWidth)
		}
	})
}

func TestClass(t *testing.T) {
	var p props
	for data, want := range map[string][2]string{
		"xterm\x00XTerm\x00":    {"xterm", "XTerm"},
		"only":                  {"only", ""},
		"\x00\x00":              {"", ""},
		"a\x00b\x00surplus\x00": {"a", "b"},
	} {
		p.setClass(x11.Property{Format: 8, Data: []byte(data)})
		if p.name != want[0] || p.class != want[1] {
			t.Errorf("%q: name %q, class %q", data, p.name, p.class)
		}
	}
	if f := textField(strings.Repeat("x", 100)); f[62] != 'x' || f[63] != 0 {
		t.Error("a long name lacks its NUL")
	}
}

func TestCursorNamesAreInTheFont(t *testing.T) {
	if n := len(fontCursors); wire.CursorX11+2*n != wire.CursorX11End {
		t.Fatalf("%d cursors", n)
	}
	names := cursorNames()
	for css, font := range cssCursors {
		if names[font] == 0 && font != fontCursors[0] {
			t.Errorf("%s stands for %s, which the font lacks", css, font)
		}
	}
	for name, glyph := range map[string]uint32{"left_ptr": 68, "xterm": 152, "watch": 150, "hand2": 60, "pointer": 60} {
		if names[name] != glyph {
			t.Errorf("%s is glyph %d, not %d", name, names[name], glyph)
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct{ in, want rect }{
		{rect{-5, -5, 20, 20}, rect{0, 0, 15, 15}},
		{rect{90, 40, 20, 20}, rect{90, 40, 10, 10}},
		{rect{100, 0, 5, 5}, rect{}},
		{rect{0, 0, 0, 5}, rect{}},
	} {
		if got := clip(c.in, 100, 50); got != c.want {
			t.Errorf("%+v is clipped to %+v", c.in, got)
		}
	}
	if got := union(rect{1, 1, 2, 2}, rect{10, 10, 1, 1}); got != (rect{1, 1, 10, 10}) {
		t.Errorf("union %+v", got)
	}
	if got := union(rect{}, rect{10, 10, 1, 1}); got != (rect{10, 10, 1, 1}) {
		t.Errorf("union with nothing %+v", got)
	}
}
