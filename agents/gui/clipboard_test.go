package gui

import (
	"strings"
	"testing"
	"unicode/utf8"

	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// owner is an X client that owns the clipboard.
type owner struct {
	*client
	text  string
	utf8  bool // else it knows STRING alone
	parts int  // bytes of one part; 0: all at once
	w     x11.Window
}

// own serves the clipboard until the test ends.
func own(t *testing.T, display string, o owner) *owner {
	t.Helper()
	x, err := x11.Dial(display)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	names, err := internAtoms(x)
	if err != nil {
		t.Fatal(err)
	}
	o.client = &client{t, x, names}
	if o.w, err = x.CreateInputOnly(x.Root(), 0, 0, 1, 1, x11.Attributes{}); err != nil {
		t.Fatal(err)
	}
	x.SetSelectionOwner(o.w, names.clipboard, x11.CurrentTime)
	if err := x.Sync(); err != nil {
		t.Fatal(err)
	}
	go o.serve()
	return &o
}

func (o *owner) serve() {
	var request x11.SelectionRequestEvent
	rest := ""
	for ev := range o.Events() {
		switch e := ev.Body.(type) {
		case x11.SelectionRequestEvent:
			property := e.Property
			switch {
			case e.Target == o.atoms.utf8String && !o.utf8, e.Target != o.atoms.utf8String && e.Target != x11.AtomString:
				property = x11.AtomNone
			case o.parts > 0:
				request, rest = e, o.text
				o.SetAttributes(e.Requestor, x11.Attributes{EventMask: x11.Ptr[uint32](x11.MaskPropertyChange)})
				o.SetWords(e.Requestor, property, o.atoms.incr, uint32(len(o.text)))
			default:
				o.SetText(e.Requestor, property, e.Target, o.text)
			}
			o.SendSelectionNotify(x11.SelectionNotifyEvent{Requestor: e.Requestor, Selection: e.Selection, Target: e.Target, Property: property})
		case x11.PropertyNotifyEvent:
			if request.Requestor == 0 || e.Window != request.Requestor || e.Atom != request.Property || e.State != x11.PropertyDeleted {
				continue
			}
			n := min(o.parts, len(rest))
			o.SetText(request.Requestor, request.Property, request.Target, rest[:n])
			if n == 0 {
				request.Requestor = 0
			}
			rest = rest[n:]
		}
	}
}

func TestCopyOutOfTheQube(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	w := c.window("focused", rect{0, 0, 100, 100}, 0, false)
	c.Map(w)
	v := d.awaitWindow("window", titled("focused"))
	big := strings.Repeat("0123456789abcdef", 20_000)
	for _, test := range []struct {
		what  string
		owner *owner
		want  string
	}{
		{"nobody owns it", nil, ""},
		{"UTF-8", &owner{text: "grüße", utf8: true}, "grüße"},
		{"Latin-1 only", &owner{text: "gr\xfc\xdfe"}, "gr\xfc\xdfe"},
		{"in parts", &owner{text: "0123456789", utf8: true, parts: 3}, "0123456789"},
		{"too much", &owner{text: big, utf8: true, parts: 100_000}, big[:wire.ClipboardTooBig]},
	} {
		if test.owner != nil {
			own(t, display, *test.owner)
		}
		before := len(d.clipboard)
		d.send(v.id, wire.ClipboardReq{})
		d.await("clipboard: "+test.what, func() bool { return len(d.clipboard) > before })
		if got := d.clipboard[before]; got != test.want {
			t.Errorf("%s: %d bytes, not %d", test.what, len(got), len(test.want))
		}
	}
}

func TestPasteIntoTheQube(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	w := c.window("focused", rect{0, 0, 100, 100}, 0, false)
	c.Map(w)
	v := d.awaitWindow("window", titled("focused"))
	d.send(v.id, wire.ClipboardData{Data: []byte("from dom0: grüße\n")})
	prop, err := c.Atom("PASTED")
	if err != nil {
		t.Fatal(err)
	}
	d.await("owner", func() bool { o, err := c.SelectionOwner(c.atoms.clipboard); return err == nil && o != 0 })
	for _, selection := range []x11.Atom{c.atoms.clipboard, c.atoms.primary} {
		c.DeleteProperty(w, prop)
		c.ConvertSelection(w, selection, c.atoms.utf8String, prop, x11.CurrentTime)
		d.await("text", func() bool {
			p, err := c.GetProperty(w, prop, x11.AtomAny, 100)
			return err == nil && string(p.Data) == "from dom0: grüße\n"
		})
	}
}

func FuzzCleanText(f *testing.F) {
	f.Add([]byte("a\tb\r\nc\n"))
	f.Add([]byte("\r"))
	f.Add([]byte("\x1b[31m"))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got := string(cleanText(text))
		if got != "" && got != string(text) || !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\x1b\x07\x08\x7f") {
			t.Errorf("%q became %q", text, got)
		}
	})
}
