package qvm

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// table is rows of text for people. On a terminal it has colours, and its
// widest columns are cut to the terminal's width; elsewhere it is whole and
// plain.
type table struct {
	head  []string
	rows  [][]string
	paint func(row, column int) string // SGR parameters of a cell, or empty
}

// minWidth is how narrow a column may be made.
const minWidth = 8

// write writes the table with two spaces between columns.
func (t table) write(w io.Writer) error {
	columns, coloured := terminalOf(w)
	rows := t.rows
	if t.head != nil {
		rows = append([][]string{t.head}, rows...)
	}
	widths := fit(rows, columns)
	var b strings.Builder
	for i, row := range rows {
		for len(row) > 1 && row[len(row)-1] == "" { // no blanks at a line's end
			row = row[:len(row)-1]
		}
		for j, cell := range row {
			if columns > 0 {
				cell = shorten(cell, widths[j])
			}
			pad := widths[j] - utf8.RuneCountInString(cell)
			if j == len(row)-1 {
				pad = -2
			}
			style := ""
			switch at := i - (len(rows) - len(t.rows)); {
			case !coloured:
			case at < 0:
				style = "1"
			case t.paint != nil:
				style = t.paint(at, j)
			}
			if style != "" {
				cell = "\x1b[" + style + "m" + cell + "\x1b[0m"
			}
			b.WriteString(cell + strings.Repeat(" ", pad+2))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// fit returns the columns' widths. When all are wider than the terminal, the
// widest become narrower; the first, a name that people copy, does not.
func fit(rows [][]string, columns int) []int {
	var widths []int
	for _, row := range rows {
		for j, cell := range row {
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], utf8.RuneCountInString(cell))
		}
	}
	total := -2
	for _, w := range widths {
		total += w + 2
	}
	for columns > 0 && total > columns {
		widest := -1
		for j := 1; j < len(widths); j++ {
			if widths[j] > minWidth && (widest < 0 || widths[j] >= widths[widest]) {
				widest = j
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
		total--
	}
	return widths
}

// shorten cuts a text to a width.
func shorten(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return string(runes[:width-1]) + "…"
}

// terminalOf returns a terminal's width in columns, 0 for what is none, and
// whether it shows colours.
func terminalOf(w io.Writer) (columns int, coloured bool) {
	if !isTerminal(w) {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(w.(*os.File).Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	_, plain := os.LookupEnv("NO_COLOR")
	return int(size.Col), !plain && os.Getenv("TERM") != "dumb"
}

// pairs are rows of two columns without a head.
func pairs(list [][2]string) table {
	var t table
	for _, p := range list {
		t.rows = append(t.rows, []string{p[0], p[1]})
	}
	return t
}

// stateStyle is how a qube's state looks.
func stateStyle(state string) string {
	switch state {
	case "Running":
		return "32"
	case "Transient", "Halting", "Dying":
		return "36"
	case "Paused", "Suspended":
		return "33"
	case "NA", "Crashed":
		return "31"
	}
	return "2"
}

// labelStyle is a label's colour as terminals have it; one of people's own has
// none.
func labelStyle(label string) string {
	switch label {
	case "red":
		return "31"
	case "orange":
		return "38;5;208"
	case "yellow":
		return "93"
	case "green":
		return "32"
	case "gray", "black":
		return "90"
	case "blue":
		return "94"
	case "purple":
		return "35"
	}
	return ""
}

// oneLine keeps a value in its cell.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '_'
		}
		return r
	}, text)
}

// sizeText is a number of bytes for people.
func sizeText(n int64) string {
	unit, value := "B", float64(n)
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		unit, value = u, value/1024
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}

// writeWhole writes a table whose texts people read to the end: on a terminal
// the last column is not cut but continues on lines of its own.
func (t table) writeWhole(w io.Writer) error {
	columns, _ := terminalOf(w)
	if columns > 0 {
		t.rows = wrap(t.head, t.rows, columns)
	}
	return t.write(w)
}

// wrap breaks the last column's texts at spaces.
func wrap(head []string, rows [][]string, columns int) [][]string {
	all := rows
	if head != nil {
		all = append([][]string{head}, rows...)
	}
	widths := fit(all, 0)
	left := 0
	for _, w := range widths[:max(len(widths)-1, 0)] {
		left += w + 2
	}
	room := columns - left
	if room < 2*minWidth {
		return rows
	}
	var wrapped [][]string
	for _, row := range rows {
		last := len(row) - 1
		for i, line := range breakLines(row[last], room) {
			next := make([]string, len(row))
			if i == 0 {
				copy(next, row)
			}
			next[last] = line
			wrapped = append(wrapped, next)
		}
	}
	return wrapped
}

// breakLines breaks a text at spaces into lines of at most width.
func breakLines(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Split(text, " ") {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = word
			continue
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
