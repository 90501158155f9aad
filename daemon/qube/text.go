package qube

import "unicode"

// Printable reports whether a rune of a qube's text may be shown in dom0:
// letters, marks, numbers, punctuation, symbols and the space; no controls,
// nothing that turns the direction of writing, no private use.
func Printable(r rune) bool { return unicode.IsPrint(r) }
