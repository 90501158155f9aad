package admin

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// MaxRequest is the size limit of a request, header and payload together
// (spec/admin-api.md §1).
const MaxRequest = 65536

// Request is one call.
type Request struct {
	Method  string
	Arg     string // after the first '+'; empty when there is none
	Source  string // who calls: unchecked name
	Dest    string // on whom: unchecked name or uuid:UUID
	Payload []byte
}

var errTooLarge = fmt.Errorf("the request is larger than %d bytes", MaxRequest)

// readHead reads up to the zero byte that ends a request's header.
func readHead(in *bufio.Reader) ([]byte, error) {
	var head []byte
	for {
		b, err := in.ReadByte()
		switch {
		case err != nil:
			return nil, fmt.Errorf("the request has no end of its header: %w", err)
		case b == 0:
			return head, nil
		case len(head) == MaxRequest-1:
			return nil, errTooLarge
		}
		head = append(head, b)
	}
}

// parseHead reads the header of a request, which is without its zero byte:
//
//	METHOD[+ARG] SP SOURCE SP TYPE SP DEST
func parseHead(head []byte) (Request, error) {
	fields := strings.SplitN(string(head), " ", 4)
	if len(fields) != 4 {
		return Request{}, fmt.Errorf("the header has %d fields instead of 4", len(fields))
	}
	r := Request{Source: fields[1], Dest: fields[3]}
	r.Method, r.Arg, _ = strings.Cut(fields[0], "+")
	switch fields[2] {
	case "name":
	case "keyword":
		if r.Dest != "adminvm" {
			return Request{}, fmt.Errorf("unknown keyword %q", r.Dest)
		}
		r.Dest = string(qube.Dom0)
	default:
		return Request{}, fmt.Errorf("unknown type %q of the destination", fields[2])
	}
	return r, nil
}

// Replies (spec/admin-api.md §1).

func writeOK(w io.Writer, text string) error {
	_, err := io.WriteString(w, "0\x00"+text)
	return err
}

func appendEvent(b *bytes.Buffer, e core.Event) {
	b.WriteString("1\x00" + clean(string(e.Subject)) + "\x00" + clean(e.Name) + "\x00")
	for _, a := range e.Args {
		b.WriteString(clean(a.Key) + "\x00" + clean(a.Value) + "\x00")
	}
	b.WriteString("\x00")
}

func writeException(w io.Writer, kind core.Kind, message string) error {
	// Old clients run %-formatting on the message.
	message = strings.ReplaceAll(clean(strings.ToValidUTF8(message, "_")), "%", "%%")
	_, err := io.WriteString(w, "2\x00"+string(kind)+"\x00\x00"+message+"\x00")
	return err
}

// clean keeps a text from ending its field early.
func clean(s string) string { return strings.ReplaceAll(s, "\x00", " ") }
