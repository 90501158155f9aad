package x11

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// entry is one entry of an xauth file.
func entry(family uint16, fields ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, family)
	for _, f := range fields {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(f))), f...)
	}
	return b
}

func TestFindCookie(t *testing.T) {
	file := bytes.Join([][]byte{
		entry(familyLocal, "other", "1", cookieName, "wrong host"),
		entry(familyLocal, "here", "2", cookieName, "wrong display"),
		entry(familyLocal, "here", "1", "XDM-AUTHORIZATION-1", "wrong kind"),
		entry(familyLocal, "here", "1", cookieName, "right"),
		entry(familyWild, "", "", cookieName, "wild"),
	}, nil)
	for display, want := range map[int]string{1: "right", 2: "wrong display", 3: "wild"} {
		got, err := findCookie(bytes.NewReader(file), "here", display)
		if err != nil || string(got) != want {
			t.Errorf("display %d: %q, %v, want %q", display, got, err, want)
		}
	}
	if got, err := findCookie(bytes.NewReader(nil), "here", 1); got != nil || err != nil {
		t.Errorf("an empty file: %q, %v", got, err)
	}
	if _, err := findCookie(bytes.NewReader(file[:9]), "here", 1); err == nil {
		t.Error("a file cut within an entry is no error")
	}
}

func TestDisplayNumber(t *testing.T) {
	for text, want := range map[string]int{":0": 0, ":12.1": 12, "unix:3": 3, "host:0": -1, ":": -1, "": -1, ":x": -1, ":-1": -1, ":99999": -1} {
		got, err := displayNumber(text)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

func FuzzFindCookie(f *testing.F) {
	f.Add(entry(familyLocal, "here", "1", cookieName, "0123456789abcdef"))
	f.Add([]byte{1, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, file []byte) {
		cookie, err := findCookie(bytes.NewReader(file), "here", 1)
		if err == nil && len(cookie) > 0 && !bytes.Contains(file, cookie) {
			t.Fatalf("cookie %q is not in the file", cookie)
		}
	})
}
