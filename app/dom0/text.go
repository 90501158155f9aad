package dom0

import (
	"strings"
	"unicode"
)

// Text is what a qube wrote, made fit to be shown: no control characters, no
// terminal sequences, nothing that turns the direction of writing. The only
// ways to it are CleanLine and CleanLines.
type Text string

// Bounds of a shown text, in runes and lines.
const (
	maxLine  = 400
	maxLines = 1000
)

// CleanLine makes one line of what a qube wrote.
func CleanLine(raw string) Text {
	lines := cleanLines(strings.Join(strings.Fields(strings.ToValidUTF8(raw, "\ufffd")), " "))
	return Text(strings.TrimSpace(strings.Join(lines, " ")))
}

// CleanLines makes lines of what a qube wrote to its console; the last ones
// where they are too many.
func CleanLines(raw string) Text { return Text(strings.Join(cleanLines(raw), "\n")) }

func cleanLines(raw string) []string {
	raw = strings.ToValidUTF8(raw, "\ufffd")
	raw = strings.ReplaceAll(raw, "\r\n", "\n")
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSuffix(raw, "\n"), "\n") {
		// A bare carriage return writes over the line: its end is what a
		// terminal shows.
		if at := strings.LastIndexByte(strings.TrimRight(line, "\r"), '\r'); at >= 0 {
			line = line[at+1:]
		}
		lines = append(lines, cleanLine(line))
		if len(lines) > 2*maxLines {
			lines = append([]string(nil), lines[len(lines)-maxLines:]...)
		}
	}
	return lines[max(0, len(lines)-maxLines):]
}

func cleanLine(line string) string {
	var b strings.Builder
	n := 0
	runes := []rune(line)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case r == 0x1b || r == 0x9b:
			i = sequenceEnd(runes, i)
			continue
		case r == '\t':
			r = ' '
		case !unicode.IsPrint(r):
			continue
		}
		if n++; n > maxLine {
			b.WriteRune('…')
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// sequenceEnd is the index of the last rune of the terminal sequence that
// begins at i (ECMA-48: CSI, OSC and two-byte sequences).
func sequenceEnd(runes []rune, i int) int {
	kind := '['
	if runes[i] == 0x1b {
		if i+1 >= len(runes) {
			return i
		}
		i++
		kind = runes[i]
	}
	switch kind {
	case '[':
		for i+1 < len(runes) {
			i++
			if runes[i] >= 0x40 && runes[i] <= 0x7e {
				return i
			}
		}
	case ']', 'P', 'X', '^', '_':
		for i+1 < len(runes) {
			i++
			if runes[i] == 0x07 {
				return i
			}
			if runes[i] == 0x1b && i+1 < len(runes) && runes[i+1] == '\\' {
				return i + 1
			}
		}
	}
	return i
}
