package wire

import (
	"bufio"
	"encoding/binary"
	"io"
	"sync"
)

// DataWriter sends the messages of a data channel (spec/qrexec.md §8). It is
// safe for concurrent use; messages never mix.
type DataWriter struct {
	chunk int
	mu    sync.Mutex // guards w and whole
	w     io.Writer
	whole []byte // of Send: header and body go out in one write
}

// NewDataWriter returns a writer of messages at version v.
func NewDataWriter(w io.Writer, v Version) *DataWriter {
	return &DataWriter{chunk: v.Chunk(), w: w}
}

// Send writes p as messages of type t, in chunks that the version allows.
// Nothing is sent for an empty p: that would be an end of file.
func (w *DataWriter) Send(t Type, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(p) > 0 {
		n := min(len(p), w.chunk)
		w.whole = append(Header{t, uint32(n)}.AppendTo(w.whole[:0]), p[:n]...)
		if _, err := w.w.Write(w.whole); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// EOF sends the end of the stream t.
func (w *DataWriter) EOF(t Type) error { return w.write(Message(t, nil)) }

// ExitCode sends the service's status, the last message of a call.
func (w *DataWriter) ExitCode(status int) error {
	return w.write(Message(DataExitCode, binary.LittleEndian.AppendUint32(nil, uint32(int32(status)))))
}

// Copy sends what r gives as messages of type t until its end, which is not
// sent. ReadErr is r's error other than io.EOF, writeErr that of the channel.
func (w *DataWriter) Copy(t Type, r io.Reader) (readErr, writeErr error) {
	buf := make([]byte, HeaderSize+w.chunk)
	for {
		n, err := r.Read(buf[HeaderSize:])
		if n > 0 {
			Header{t, uint32(n)}.AppendTo(buf[:0])
			if werr := w.write(buf[:HeaderSize+n]); werr != nil {
				return nil, werr
			}
		}
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

func (w *DataWriter) write(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(b)
	return err
}

// DataReader reads the messages of a data channel.
type DataReader struct {
	chunk uint32
	r     *bufio.Reader
	taken int // bytes of the last message, still in the buffer
}

// NewDataReader returns a reader of messages at version v. It reads ahead.
func NewDataReader(r io.Reader, v Version) *DataReader {
	return &DataReader{chunk: uint32(v.Chunk()), r: bufio.NewReaderSize(r, HeaderSize+v.Chunk())}
}

// Next returns the next message; its body is valid until the call after. A
// body longer than the version allows, an unknown type and an exit code that
// is not four bytes long are ErrProtocol. An unbroken end is io.EOF.
func (r *DataReader) Next() (Type, []byte, error) {
	if _, err := r.r.Discard(r.taken); err != nil {
		return 0, nil, err
	}
	r.taken = 0
	b, err := r.r.Peek(HeaderSize)
	if err != nil {
		if len(b) > 0 {
			err = noEOF(err)
		}
		return 0, nil, err
	}
	h, err := ParseHeader(b)
	if err != nil {
		return 0, nil, err
	}
	switch h.Type {
	case DataStdin, DataStdout, DataStderr:
		if h.Length > r.chunk {
			return 0, nil, protocolf("%v with %d bytes, at most %d are allowed", h.Type, h.Length, r.chunk)
		}
	case DataExitCode:
		if h.Length != 4 {
			return 0, nil, protocolf("%v with %d bytes instead of 4", h.Type, h.Length)
		}
	default:
		return 0, nil, protocolf("%v on a data channel", h.Type)
	}
	b, err = r.r.Peek(HeaderSize + int(h.Length))
	if err != nil {
		return 0, nil, noEOF(err)
	}
	r.taken = len(b)
	return h.Type, b[HeaderSize:], nil
}

// ExitStatus reads the body of an exit code message.
func ExitStatus(body []byte) (int, error) {
	if len(body) != 4 {
		return 0, protocolf("exit code of %d bytes", len(body))
	}
	return int(int32(binary.LittleEndian.Uint32(body))), nil
}

// OpenData exchanges hellos on a fresh data channel. Both ends may write
// first.
func OpenData(rw io.ReadWriter) (*DataReader, *DataWriter, error) {
	if err := GreetData(rw); err != nil {
		return nil, nil, err
	}
	return AcceptData(rw)
}

// GreetData is our half of OpenData: it says hello, which the other end waits
// for.
func GreetData(w io.Writer) error {
	_, err := w.Write(HelloMessage(OwnVersion))
	return err
}

// AcceptData is the rest of OpenData, after GreetData.
func AcceptData(rw io.ReadWriter) (*DataReader, *DataWriter, error) {
	peer, err := ReadHello(rw)
	if err != nil {
		return nil, nil, err
	}
	v, err := Negotiate(OwnVersion, peer, MinVersion)
	if err != nil {
		return nil, nil, err
	}
	return NewDataReader(rw, v), NewDataWriter(rw, v), nil
}

// Statuses of a call that are qrexec's own (spec/qrexec.md §8).
const (
	StatusNoService = 127 // allowed, but there is no such service
	StatusRefused   = 126 // refused by policy
	StatusFault     = 125 // a fault of qrexec itself
	StatusNoChannel = 255 // the channel ended without an exit code
)
