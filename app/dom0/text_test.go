package dom0_test

import (
	"strings"
	"testing"
	"unicode"

	"cubicle/app/dom0"
)

func TestTextIsCleaned(t *testing.T) {
	for raw, want := range map[string]string{
		"plain":                               "plain",
		"\x1b[1;31mred\x1b[0m and\tafter\r\n": "red and after",
		"10 %\r50 %\r100 %\nnext":             "100 %\nnext",
		"\x1b]0;title\x07body":                "body",
		"\x1b]0;title\x1b\\body":              "body",
		"exe.\u202egnp":                       "exe.gnp",
		"bad \xff byte":                       "bad \ufffd byte",
		"cut \x1b[":                           "cut ",
		"\x1b":                                "",
		"":                                    "",
	} {
		if got := dom0.CleanLines(raw); string(got) != want {
			t.Errorf("%q became %q, want %q", raw, got, want)
		}
	}
	if got := dom0.CleanLine("  two\nlines\x00 "); got != "two lines" {
		t.Errorf("a line became %q", got)
	}
}

func FuzzCleanLines(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m\n\x9b2J\u2066\ntab\t\r\rx\xff")
	f.Add(strings.Repeat("long ", 500) + strings.Repeat("\n", 3000))
	f.Fuzz(func(t *testing.T, raw string) {
		lines := strings.Split(string(dom0.CleanLines(raw)), "\n")
		if len(lines) > 1000 {
			t.Fatalf("%d lines", len(lines))
		}
		for _, line := range append(lines, string(dom0.CleanLine(raw))) {
			if n := len([]rune(line)); n > 401 {
				t.Errorf("a line of %d runes", n)
			}
			for _, r := range line {
				if !unicode.IsPrint(r) {
					t.Errorf("%U is in %q", r, line)
				}
			}
		}
	})
}
