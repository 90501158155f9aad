package launch

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"sync"
	"time"
)

// Log merges the output of several programs line by line: time, name in a
// colour of its own, text.
type Log struct {
	mu    sync.Mutex // guards out
	out   io.Writer
	color bool
	width int
}

// NewLog returns a log that writes to out, with colours or without. Names are
// padded to width.
func NewLog(out io.Writer, color bool, width int) *Log {
	return &Log{out: out, color: color, width: width}
}

// maxLine bounds one line of a program; longer ones are cut into several.
const maxLine = 4096

// Writer returns a writer whose lines get the prefix name. It is for one
// program's output: bytes of an unfinished line wait for the rest.
func (l *Log) Writer(name string) io.Writer { return &lineWriter{log: l, name: name} }

type lineWriter struct {
	log  *Log
	name string
	mu   sync.Mutex // guards rest: standard output and error may share a writer
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		i := bytes.IndexByte(w.rest, '\n')
		if i < 0 && len(w.rest) < maxLine {
			return len(p), nil
		}
		skip := i + 1
		if i < 0 || i > maxLine {
			i, skip = maxLine, maxLine
		}
		w.log.line(w.name, w.rest[:i])
		w.rest = w.rest[skip:]
	}
}

// line writes one line. Control characters are shown as escapes: a program's
// text must not steer the terminal.
func (l *Log) line(name string, text []byte) {
	var b bytes.Buffer
	stamp := time.Now().Format("15:04:05.000")
	if l.color {
		fmt.Fprintf(&b, "\x1b[2m%s\x1b[0m \x1b[%dm%-*s\x1b[0m ", stamp, shade(name), l.width, name)
	} else {
		fmt.Fprintf(&b, "%s %-*s ", stamp, l.width, name)
	}
	for _, r := range string(bytes.TrimRight(text, "\r")) {
		if r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			fmt.Fprintf(&b, "\\x%02x", r)
			continue
		}
		b.WriteRune(r)
	}
	b.WriteByte('\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	// Nobody is left to tell when the log itself cannot be written.
	_, _ = l.out.Write(b.Bytes())
}

// shade picks one of the readable terminal colours for a name, always the
// same one.
func shade(name string) int {
	shades := [...]int{31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96}
	h := fnv.New32a()
	h.Write([]byte(name))
	return shades[h.Sum32()%uint32(len(shades))]
}
