package wire

import "io"

// NewEscapeFilter returns a writer that passes only printable ASCII, TAB, LF,
// CR, BS and BEL to w and turns every other byte into '_' (spec/qrexec.md §8):
// what a qube prints cannot steer a terminal of dom0.
func NewEscapeFilter(w io.Writer) io.Writer { return escapeFilter{w} }

type escapeFilter struct{ w io.Writer }

func (f escapeFilter) Write(p []byte) (int, error) {
	b := make([]byte, len(p))
	for i, c := range p {
		switch {
		case c >= 0x20 && c <= 0x7e, c == '\t', c == '\n', c == '\r', c == '\b', c == '\a':
			b[i] = c
		default:
			b[i] = '_'
		}
	}
	return f.w.Write(b)
}
