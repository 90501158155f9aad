package filecopy

import (
	"bytes"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"path"
	"strings"
	"testing"
	"time"
)

// TestUpstreamsExample is the exchange that upstream's unpacker was seen in.
func TestUpstreamsExample(t *testing.T) {
	b := Record("hello.txt", 0o100644, 3, TimeOf(time.Unix(1700000000, 0)), TimeOf(time.Unix(1700000001, 5)))
	b = append(append(b, "hi\n"...), End()...)
	want := "0a000000a4810000030000000000000000f153650000000001f153650500000068656c6c6f2e7478740068690a" + strings.Repeat("00", 32)
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("stream %s\nwant   %s", got, want)
	}
	answer := Answer{CRC: crc32.ChecksumIEEE(b), Name: "hello.txt", HasName: true}
	want = "00000000000000009fb5a94e000000000900000068656c6c6f2e747874"
	if got := hex.EncodeToString(answer.Bytes()); got != want {
		t.Errorf("answer %s\nwant   %s", got, want)
	}
	back, err := ReadAnswer(bytes.NewReader(answer.Bytes()))
	if err != nil || back != answer {
		t.Errorf("read back: %+v, %v", back, err)
	}
	h := ParseHeader([HeaderSize]byte(b[:HeaderSize]))
	if h != (Header{10, 0o100644, 3, Time{1700000000, 0}, Time{1700000001, 5}}) {
		t.Errorf("header %+v", h)
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct {
		path        string
		plain, wild bool // accepted; with all names
	}{
		{"a", true, true}, {"d/a", true, true}, {"a b", true, true}, {"żółw", true, true}, {"..a", true, true}, {"日本", true, true},
		{"", false, false}, {"/a", false, false}, {"../a", false, false}, {"a/..", false, false}, {"./a", false, false}, {"d//a", false, false},
		{"a/", false, false}, {".", false, false}, {"a\x00b", false, false},
		{"a\nb", false, true}, {"\xff", false, true}, {"שלום", false, true}, {"\U0001F600", false, true}, {"a\u202eb", false, true}, {"\x7f", false, true},
	} {
		if got := CheckPath(c.path, false) == nil; got != c.plain {
			t.Errorf("%q: %v", c.path, got)
		}
		if got := CheckPath(c.path, true) == nil; got != c.wild {
			t.Errorf("%q with all names: %v", c.path, got)
		}
	}
}

func TestLinks(t *testing.T) {
	for _, c := range []struct {
		path, target string
		want         error
	}{
		{"l", "a", ErrLink}, {"d/l", "../a", ErrLink}, {"d/l", "/etc/passwd", ErrLink}, {"d/l", "a/../b", ErrLink}, {"d/e/l", "../../a", ErrLink},
		{"d/l", "", ErrLink}, {"d/l", "..", ErrLink}, {"d/l", "./..", ErrLink}, {"d/l", "a/..", ErrLink}, {"d/e/l", ".././../a", ErrLink},
		{"d/l", "a", nil}, {"d/e/l", "../a", nil}, {"d/l", "./a", nil}, {"d/l", "a//b", nil}, {"d/l", "a/", nil}, {"d/e/l", "..", nil},
		{"d/l", "a\n", ErrName}, {"d/l", "a\x00b", ErrName},
	} {
		if got := CheckLink(c.path, c.target, false); !errors.Is(got, c.want) {
			t.Errorf("%s → %s: %v, want %v", c.path, c.target, got, c.want)
		}
	}
	if err := CheckLink("d/l", "a\n", true); err != nil {
		t.Error(err)
	}
}

// FuzzLinks resolves accepted links the way a file system without further
// links does: the target stays below the path's first component.
func FuzzLinks(f *testing.F) {
	f.Add("d/e/l", "../a")
	f.Add("d/l", "./a//b/")
	f.Add("d/l", "a/../../b")
	f.Fuzz(func(t *testing.T, link, target string) {
		if CheckPath(link, true) != nil || CheckLink(link, target, true) != nil {
			return
		}
		top, _, _ := strings.Cut(link, "/")
		to := path.Join(path.Dir(link), target)
		if to != top && !strings.HasPrefix(to, top+"/") {
			t.Errorf("%q → %q leads to %q", link, target, to)
		}
	})
}

func TestAnswers(t *testing.T) {
	long := Answer{Code: 36, Name: strings.Repeat("x", 20000), HasName: true}
	got, err := ReadAnswer(bytes.NewReader(long.Bytes()))
	if err != nil || len(got.Name) != 16384 {
		t.Errorf("%d bytes of name, %v", len(got.Name), err)
	}
	got, err = ReadAnswer(bytes.NewReader(Answer{Code: 2, Name: "a\x1b\"é", HasName: true}.Bytes()))
	if err != nil || got.Name != "a____" {
		t.Errorf("%q, %v", got.Name, err)
	}
	got, err = ReadAnswer(bytes.NewReader(Answer{Code: 17}.Bytes()))
	if err != nil || got.HasName || got.Code != 17 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ReadAnswer(strings.NewReader("")); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	for code, want := range map[Code]string{17: "file exists", CodeReported: "the stream ended in the middle of a file", 4294967212: "invalid or incomplete multibyte or wide character", 99999: "error 99999"} {
		if code.Error() != want {
			t.Errorf("%d: %q", code, code.Error())
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(Answer{CRC: 7, Name: "a", HasName: true}.Bytes())
	f.Add(Answer{Code: 17}.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ReadAnswer(bytes.NewReader(b))
		if err != nil {
			return
		}
		for i := range len(a.Name) {
			if c := a.Name[i]; c < 0x20 || c > 0x7e || c == '"' {
				t.Fatalf("%q", a.Name)
			}
		}
		_ = a.Code.Error()
	})
}
