package qubesdb

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// seeds are messages of every type, good and bad.
func seeds() [][]byte {
	var all [][]byte
	for t := Read; t <= WatchEvent+1; t++ {
		all = append(all,
			Message{Type: t, Path: "/name"}.AppendTo(nil),
			Message{Type: t, Path: "/a/", Data: "value"}.AppendTo(nil),
			Message{Type: t}.AppendTo(nil))
	}
	long := Message{Type: Write, Path: "/x"}.AppendTo(nil)
	copy(long[lengthAt:], []byte{0xff, 0xff, 0xff, 0xff})
	noEnd := Message{Type: Write, Path: "/x"}.AppendTo(nil)
	copy(noEnd[pathAt:], strings.Repeat("/", pathSize))
	return append(all, nil, []byte{1}, long, noEnd,
		Message{Type: Write, Path: "/x", Data: strings.Repeat("v", MaxData)}.AppendTo(nil),
		Message{Type: Write, Path: "/x", Data: "a\x00b"}.AppendTo(nil),
		Message{Type: Write, Path: "/x", Data: "half"}.AppendTo(nil)[:HeaderSize+2])
}

// FuzzReadMessage: whatever comes, a message that passes is one that may be
// sent, and reads back the same.
func FuzzReadMessage(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			m, err := ReadMessage(r)
			var bad *BadMessage
			if errors.As(err, &bad) {
				continue
			}
			if err != nil {
				return
			}
			again, err := ReadMessage(bytes.NewReader(m.AppendTo(nil)))
			if err != nil || again != m {
				t.Fatalf("%+v reads back as %+v, %v", m, again, err)
			}
		}
	})
}

// byteConn is a connection that reads from memory and swallows what is
// written to it.
type byteConn struct {
	net.Conn
	r io.Reader
}

func (c byteConn) Read(b []byte) (int, error)  { return c.r.Read(b) }
func (c byteConn) Write(b []byte) (int, error) { return len(b), nil }
func (c byteConn) Close() error                { return nil }

// fuzzSide sends bytes to one kind of connection and looks at the database.
func fuzzSide(f *testing.F, who role) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Add(bytes.Join(seeds(), nil))
	f.Add(append(Message{Type: MultiRead}.AppendTo(nil), Message{Type: Write, Path: "/qubes-x", Data: "1"}.AppendTo(nil)...))
	f.Add(append(Message{Type: MultiReadReply, Path: "/n", Data: "1"}.AppendTo(nil), Message{Type: MultiReadReply}.AppendTo(nil)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := NewForQube()
		if err := d.Apply(true, []Change{{Path: "/name", Value: "work"}, {Path: "/qubes-block-devices"}}); err != nil {
			t.Fatal(err)
		}
		c := newConn(d, who, byteConn{r: bytes.NewReader(b)})
		if who == dom0 {
			c.seen = map[string]bool{}
		}
		// Whatever error it is: the connection ends, and the database is whole.
		_ = c.read()
		d.mu.Lock()
		defer d.mu.Unlock()
		var stored Limits
		for i, p := range d.paths {
			e, ok := d.entries[p]
			if !ok || CheckPath(p) != nil || CheckValue(e.value) != nil || i > 0 && d.paths[i-1] >= p {
				t.Fatalf("entry %q = %+v", p, e)
			}
			if e.origin == remote {
				stored.Entries++
				stored.Bytes += len(p) + len(e.value)
			}
		}
		if len(d.paths) != len(d.entries) || stored != d.remote || stored.Bytes > guestLimits.Bytes {
			t.Fatalf("%d paths, %d entries, counted %+v, found %+v", len(d.paths), len(d.entries), d.remote, stored)
		}
		if who == qube && d.entries["/name"].value != "work" {
			t.Fatalf("the qube has changed what is dom0's: %+v", d.entries["/name"])
		}
	})
}

func FuzzQube(f *testing.F)   { fuzzSide(f, qube) }
func FuzzDom0(f *testing.F)   { fuzzSide(f, dom0) }
func FuzzClient(f *testing.F) { fuzzSide(f, client) }
