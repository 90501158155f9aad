package window

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// firstText returns the bytes before the first NUL; the last byte counts as
// one.
func firstText(b []byte) []byte {
	b = b[:len(b)-1]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return b
}

// Text is text for dom0's screen: printable ASCII, and other characters only
// where the configuration allows them and they show as themselves. It is made
// of a qube's bytes by cleanText alone, and of dom0's own text by trusted.
type Text struct{ s string }

func (t Text) String() string { return t.s }

// trusted is text of dom0's own making.
func trusted(s string) Text { return Text{s} }

// behind puts dom0's text before t.
func (t Text) behind(prefix string) Text { return Text{prefix + t.s} }

// cleanText makes a qube's text showable (spec/gui-protocol.md §12.1): every
// byte that is not printable ASCII becomes '_'. With utf8Allowed, well-formed
// UTF-8 stays, but for characters that change how others are shown.
func cleanText(b []byte, utf8Allowed bool) Text {
	const ellipsis = "\u2026"
	if cut, ok := bytes.CutSuffix(b, []byte(ellipsis)); ok && !utf8Allowed {
		b = append(bytes.Clone(cut), "..."...)
	}
	var out strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r >= 0x20 && r < 0x7f:
			out.WriteByte(b[0])
		case utf8Allowed && n > 1 && showable(r):
			out.WriteRune(r)
		case utf8Allowed:
			out.WriteByte('_')
		default:
			n = 1
			out.WriteByte('_')
		}
		b = b[n:]
	}
	return Text{out.String()}
}

// showable tells whether a character beyond ASCII shows as itself: no C1
// controls, no marks that turn the direction of text or are invisible.
func showable(r rune) bool {
	switch {
	case r < 0xa0, // C1
		r == 0xad,                  // soft hyphen
		r == 0x61c,                 // Arabic letter mark
		r == 0x115f || r == 0x1160, // Hangul fillers
		r == 0x180e,
		r >= 0x200b && r <= 0x200f, // zero width, LRM, RLM
		r >= 0x2028 && r <= 0x202e, // line separators, embeddings, overrides
		r >= 0x2060 && r <= 0x206f, // isolates and other invisible ones
		r == 0x3164,
		r >= 0xfe00 && r <= 0xfe0f, // variation selectors
		r == 0xfeff,
		r == 0xffa0,
		r >= 0xfff0 && r <= 0xfffb,
		r&0xfffe == 0xfffe,            // not characters
		r >= 0xe000 && r <= 0xf8ff,    // private use
		r >= 0xe0000 && r <= 0x10ffff: // tags, private use
		return false
	}
	return true
}
