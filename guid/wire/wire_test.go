package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vectors are those of spec/gui-protocol.md §20.
var vectors = []struct {
	name   string
	dir    Direction
	hex    string
	window WindowID
	msg    Message
}{
	{"create", ToDaemon, "82000000 01004000 18000000 fbffffff 0a000000 80020000 e0010000 d7010000 01000000", 0x400001,
		Create{X: -5, Y: 10, Width: 640, Height: 480, Parent: 0x1d7, OverrideRedirect: 1}},
	{"map", ToDaemon, "84000000 01004000 08000000 00000000 01000000", 0x400001, Map{OverrideRedirect: 1}},
	{"dump", ToDaemon, "93000000 01004000 18000000 00000000 20000000 40000000 20000000 08000000 09000000", 0x400001,
		WindowDump{Kind: DumpGrants, Width: 32, Height: 64, BPP: 32, Grants: []uint32{8, 9}}},
	{"region dump", ToDaemon, "93000000 01004000 1c000000 01000000 20000000 40000000 20000000 00100000 01000000 80000000", 0x400001,
		WindowDump{Kind: DumpRegion, Width: 32, Height: 64, BPP: 32, Offset: 0x1_0000_1000, Stride: 128}},
	{"dump ack", ToAgent, "95000000 01004000 00000000", 0x400001, WindowDumpAck{}},
	{"configure", ToAgent, "86000000 01004000 14000000 00000000 1b000000 80020000 e0010000 00000000", 0x400001,
		Configure{Y: 27, Width: 640, Height: 480}},
	{"key press", ToAgent, "7c000000 01004000 14000000 02000000 0f000000 ffffffff 05000000 36000000", 0x400001,
		KeyPress{EventType: 2, X: 15, Y: -1, State: 5, Keycode: 54}},
}

func TestVectorsOfTheSpecBothWays(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			want := unhex(t, v.hex)
			if got := Append(nil, v.window, v.msg); !bytes.Equal(got, want) {
				t.Errorf("Append:\n got %x\nwant %x", got, want)
			}
			window, msg, err := NewReader(bytes.NewReader(want), v.dir, Current).Next()
			if err != nil {
				t.Fatal(err)
			}
			if window != v.window {
				t.Errorf("window %#x, want %#x", window, v.window)
			}
			if diff := cmp.Diff(v.msg, msg); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// every lists one message of each kind, by the directions in which it travels.
var every = []Message{
	KeyPress{2, 1, -2, 3, 4}, Button{4, 1, 2, 3, 1}, Motion{1, 2, 3, 0}, Crossing{7, 1, 2, 3, 0, 1, 1},
	Focus{9, 0, 3}, Close{}, Resize{1920, 1080}, ClipboardReq{}, KeymapNotify{Keys: [32]byte{3: 8}}, WindowDumpAck{},
	Create{1, 2, 3, 4, 5, 6}, Destroy{}, Map{1, 0}, Unmap{}, Configure{-1, -2, 3, 4, 0}, ShmImage{1, 2, 3, 4},
	WMName{Text: [128]byte{'h', 'i'}}, WMClass{Class: [64]byte{'c'}, Name: [64]byte{'n'}},
	WindowHints{Flags: HintPMinSize, MinWidth: 7, BaseHeight: 9}, WindowFlags{1, 2}, Dock{}, Cursor{0x102},
	ClipboardData{Data: []byte("text")}, WindowDump{Width: 1, Height: 1, BPP: 32, Grants: []uint32{5}},
	WindowDump{Kind: DumpRegion, Width: 1, Height: 1, BPP: 32, Offset: 64, Stride: 4},
}

func TestEveryMessageTravelsOnlyItsWay(t *testing.T) {
	for _, m := range every {
		for _, dir := range []Direction{ToDaemon, ToAgent} {
			b := Append(nil, 7, m)
			window, got, err := NewReader(bytes.NewReader(b), dir, Current).Next()
			if !m.Type().Travels(dir) {
				var offence *ProtocolError
				if dir == ToDaemon && !errors.As(err, &offence) {
					t.Errorf("%v %v: error %v, want a protocol error", m.Type(), dir, err)
				}
				if dir == ToAgent && err != io.EOF {
					t.Errorf("%v %v: error %v, want it skipped", m.Type(), dir, err)
				}
				continue
			}
			if err != nil || window != 7 || !cmp.Equal(m, got) {
				t.Errorf("%v %v: got %v %+v, %v", m.Type(), dir, window, got, err)
			}
		}
	}
}

// stubborn fails the test when bytes beyond the header are asked for.
type stubborn struct {
	t    *testing.T
	head []byte
}

func (s *stubborn) Read(p []byte) (int, error) {
	if len(s.head) == 0 {
		s.t.Error("read on after the header")
		return 0, io.EOF
	}
	n := copy(p, s.head)
	s.head = s.head[n:]
	return n, nil
}

func TestOffencesAreFoundBeforeTheBodyIsRead(t *testing.T) {
	for name, h := range map[string]Header{
		"unknown type":         {Type: 150, Len: 0},
		"type 0":               {Type: 0, Len: 0xffffffff},
		"MFNDUMP":              {Type: TypeMFNDump, Len: 28},
		"input from the agent": {Type: TypeKeyPress, Len: 20},
		"CREATE too long":      {Type: TypeCreate, Len: 25},
		"CREATE too short":     {Type: TypeCreate, Len: 0},
		"dump without head":    {Type: TypeWindowDump, Len: 15},
		"dump not of words":    {Type: TypeWindowDump, Len: 18},
		"dump of 4 GB":         {Type: TypeWindowDump, Len: 0xfffffff0},
		"dump a page too long": {Type: TypeWindowDump, Len: 16 + 4*(MaxGrants+1)},
		"clipboard too long":   {Type: TypeClipboardData, Len: ClipboardTooBig + 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := NewReader(&stubborn{t, h.AppendTo(nil)}, ToDaemon, Current).Next()
			var offence *ProtocolError
			if !errors.As(err, &offence) {
				t.Fatalf("error %v, want a protocol error", err)
			}
		})
	}
}

func TestDumpKindIsJudgedBeforeItsReferences(t *testing.T) {
	head := Header{Type: TypeWindowDump, Len: 16 + 4*MaxGrants}.AppendTo(nil)
	head = append(head, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 32, 0, 0, 0)
	_, _, err := NewReader(&stubborn{t, head}, ToDaemon, Current).Next()
	var offence *ProtocolError
	if !errors.As(err, &offence) {
		t.Fatalf("error %v, want a protocol error", err)
	}
}

func TestOldAgents(t *testing.T) {
	b := Append(nil, 1, Map{0, 1})
	binary.LittleEndian.PutUint32(b[8:], 99) // before 1.6 the announced length does not count
	if _, m, err := NewReader(bytes.NewReader(b), ToDaemon, 1<<16|5).Next(); err != nil || m != (Map{0, 1}) {
		t.Errorf("got %v, %v", m, err)
	}
	long := Append(nil, 1, ClipboardData{Data: make([]byte, MaxClipboardOld+1)})
	if _, _, err := NewReader(bytes.NewReader(long), ToDaemon, 1<<16|7).Next(); err == nil {
		t.Error("a 1.7 clipboard above its limit was accepted")
	}
}

func TestCutStreams(t *testing.T) {
	b := Append(nil, 1, Create{})
	for n := range b {
		_, _, err := NewReader(bytes.NewReader(b[:n]), ToDaemon, Current).Next()
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if !errors.Is(err, want) {
			t.Errorf("%d bytes: error %v, want %v", n, err, want)
		}
	}
}

// A message that stops within is given up, silence between messages is not.
func TestPatienceEndsWithinAMessage(t *testing.T) {
	daemon, agent := net.Pipe()
	defer daemon.Close()
	defer agent.Close()
	r := NewReader(daemon, ToDaemon, Current)
	r.LimitPatience(daemon, 50*time.Millisecond)
	whole := Append(nil, 1, Create{Width: 1, Height: 1})
	for _, cut := range []int{1, HeaderSize - 1, HeaderSize, len(whole) - 1} {
		go func() {
			agent.Write(whole)
			time.Sleep(100 * time.Millisecond) // longer than the patience
			agent.Write(whole)
			agent.Write(whole[:cut])
		}()
		for i := range 2 {
			if _, _, err := r.Next(); err != nil {
				t.Fatalf("whole message %d: %v", i, err)
			}
		}
		if _, _, err := r.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d of %d bytes and silence: %v", cut, len(whole), err)
		}
		r = NewReader(daemon, ToDaemon, Current)
		r.LimitPatience(daemon, 50*time.Millisecond)
		daemon.SetReadDeadline(time.Time{})
	}
}

func TestHandshake(t *testing.T) {
	daemon, agent := net.Pipe()
	defer daemon.Close()
	defer agent.Close()
	type result struct {
		v   Version
		err error
	}
	done := make(chan result)
	go func() {
		v, err := DaemonHandshake(daemon, NewXConf(1917, 1080, 24))
		done <- result{v, err}
	}()
	v, conf, err := AgentHandshake(agent)
	if r := <-done; r.err != nil || err != nil || v != Current || r.v != Current {
		t.Fatalf("agent %v %v, daemon %v %v", v, err, r.v, r.err)
	}
	if want := (XConf{1920, 1080, 24, 8101}); conf != want {
		t.Errorf("xconf %+v, want %+v", conf, want)
	}
	if got, want := appendFixed(nil, conf), unhex(t, "80070000 38040000 18000000 a51f0000"); !bytes.Equal(got, want) {
		t.Errorf("xconf bytes %x, want %x", got, want)
	}
}

type pipe struct {
	io.Reader
	bytes.Buffer
}

func (p *pipe) Read(b []byte) (int, error)  { return p.Reader.Read(b) }
func (p *pipe) Write(b []byte) (int, error) { return p.Buffer.Write(b) }

func TestHandshakeVersions(t *testing.T) {
	for _, tc := range []struct {
		agent  string
		answer int // bytes
		want   Version
	}{
		{"08000100", 20, 1<<16 | 8},
		{"63000100", 20, 1<<16 | 8},
		{"04000100", 20, 1<<16 | 4},
		{"03000100", 16, 1<<16 | 3}, // no version in the answer
		{"00000100", 16, 1 << 16},
		{"08000200", 0, 0},
		{"08000000", 0, 0},
		{"ffffffff", 0, 0},
	} {
		p := &pipe{Reader: bytes.NewReader(unhex(t, tc.agent))}
		v, err := DaemonHandshake(p, NewXConf(800, 600, 24))
		if v != tc.want || p.Len() != tc.answer || (err == nil) != (tc.want != 0) {
			t.Errorf("agent %s: version %v, %d bytes of answer, error %v", tc.agent, v, p.Len(), err)
		}
		var ve *VersionError
		if err != nil && !errors.As(err, &ve) {
			t.Errorf("agent %s: error %v is no VersionError", tc.agent, err)
		}
	}
	for _, answer := range []string{"09000100", "03000100", "08000200"} {
		p := &pipe{Reader: bytes.NewReader(unhex(t, answer+strings.Repeat("00", 16)))}
		if _, _, err := AgentHandshake(p); err == nil {
			t.Errorf("the agent accepted %s", answer)
		}
	}
}

func TestQueueNeverBlocksAndIsBounded(t *testing.T) {
	r, w := io.Pipe() // nobody reads
	q := NewQueue(w, 1000)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = q.Send(1, Motion{X: int32(n)})
	}
	if !errors.Is(err, ErrQueueFull) {
		t.Fatalf("error %v after %d messages", err, n)
	}
	if n-1 > 1000/28 {
		t.Errorf("%d messages of 28 bytes were accepted into 1000 bytes", n-1)
	}
	if err := q.Send(1, Destroy{}); !errors.Is(err, ErrQueueFull) {
		t.Errorf("after the overflow: %v", err)
	}
	r.Close()
	select {
	case <-q.Done():
	case <-time.After(5 * time.Second):
		t.Error("the writer lives on")
	}
}

func TestQueueKeepsOrderAndDrainsAtClose(t *testing.T) {
	r, w := io.Pipe()
	q := NewQueue(w, QueueLimit)
	const count = 1000
	go func() {
		for i := range count {
			q.Send(WindowID(i), Destroy{})
		}
		q.Close()
	}()
	in := NewReader(r, ToAgent, Current)
	for i := range count {
		if window, _, err := in.Next(); err != nil || window != WindowID(i) {
			t.Fatalf("message %d: window %d, %v", i, window, err)
		}
	}
	<-q.Done()
	if err := q.Send(1, Destroy{}); err == nil {
		t.Error("a closed queue took a message")
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0}, true)
	f.Add([]byte{3, 0, 1, 0}, true)
	f.Add(append([]byte{8, 0, 1, 0}, make([]byte, 16)...), false)
	f.Fuzz(func(t *testing.T, in []byte, daemon bool) {
		p := &pipe{Reader: bytes.NewReader(in)}
		if daemon {
			v, err := DaemonHandshake(p, NewXConf(800, 600, 24))
			if err == nil && (v.Major() != 1 || v > Current || p.Len() < 16) {
				t.Fatalf("version %v with %d bytes of answer", v, p.Len())
			}
			return
		}
		v, _, err := AgentHandshake(p)
		if err == nil && (v < version1_4 || v > Current) {
			t.Fatalf("version %v", v)
		}
	})
}

func FuzzReader(f *testing.F) {
	for _, m := range every {
		f.Add(Append(nil, 7, m), true)
		f.Add(Append(nil, 7, m), false)
	}
	f.Add(Header{Type: TypeWindowDump, Len: 0xffffffff}.AppendTo(nil), true)
	f.Add(Header{Type: 99, Len: 3}.AppendTo(nil), false)
	f.Fuzz(func(t *testing.T, stream []byte, toDaemon bool) {
		dir := ToAgent
		if toDaemon {
			dir = ToDaemon
		}
		r := NewReader(bytes.NewReader(stream), dir, Current)
		for {
			window, m, err := r.Next()
			if err != nil {
				return
			}
			if !m.Type().Travels(dir) {
				t.Fatalf("%v came %v", m.Type(), dir)
			}
			again, m2, err := NewReader(bytes.NewReader(Append(nil, window, m)), dir, Current).Next()
			if err != nil || again != window || !cmp.Equal(m, m2) {
				t.Fatalf("%#v does not survive its own bytes: %#v, %v", m, m2, err)
			}
		}
	})
}
