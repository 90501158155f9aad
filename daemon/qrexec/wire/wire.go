// Package wire is the byte format of qrexec (spec/qrexec.md §3–§6, §8, §9):
// message headers and bodies, hellos, the command line that an exec message
// carries, the messages of a data channel and the cleaning of names.
//
// Most callers use ReadMessage with the Peer that they listen to: it knows
// which types that peer may send and how long their bodies may be, and checks
// both before it allocates. Nothing here logs, and nothing trusts its input.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Type is the number of a message (spec/qrexec.md §4).
type Type uint32

// The messages.
const (
	DataStdin    Type = 0x190 // caller end → service end
	DataStdout   Type = 0x191 // service end → caller end
	DataStderr   Type = 0x192 // service end → caller end
	DataExitCode Type = 0x193 // service end → caller end

	ExecCmdline          Type = 0x200 // client → daemon → agent
	JustExec             Type = 0x201 // client → daemon → agent
	ServiceConnect       Type = 0x202 // client → daemon → agent
	ServiceRefused       Type = 0x203 // daemon → agent
	TriggerService       Type = 0x210 // agent → daemon, version 2
	ConnectionTerminated Type = 0x211 // agent → daemon
	TriggerService3      Type = 0x212 // agent → daemon, version 3
	TriggerService4      Type = 0x213 // VM client → agent → daemon, version 4

	Hello Type = 0x300
)

func (t Type) String() string {
	switch t {
	case DataStdin:
		return "DATA_STDIN"
	case DataStdout:
		return "DATA_STDOUT"
	case DataStderr:
		return "DATA_STDERR"
	case DataExitCode:
		return "DATA_EXIT_CODE"
	case ExecCmdline:
		return "EXEC_CMDLINE"
	case JustExec:
		return "JUST_EXEC"
	case ServiceConnect:
		return "SERVICE_CONNECT"
	case ServiceRefused:
		return "SERVICE_REFUSED"
	case TriggerService:
		return "TRIGGER_SERVICE"
	case ConnectionTerminated:
		return "CONNECTION_TERMINATED"
	case TriggerService3:
		return "TRIGGER_SERVICE3"
	case TriggerService4:
		return "TRIGGER_SERVICE4"
	case Hello:
		return "HELLO"
	}
	return fmt.Sprintf("message %#x", uint32(t))
}

// Sizes and limits in bytes (spec/qrexec.md §2–§4).
const (
	HeaderSize     = 8
	IdentSize      = 32
	MaxExecBody    = 65535 // domain, port, command and its NUL
	MaxServiceName = 65000 // with argument and NUL, in a trigger
	MaxBareService = 255   // service name without argument

	execFixed     = 8
	trigger2Size  = 128
	trigger3Fixed = 96
	trigger4Fixed = 160
	fieldSize     = 64
	target2Size   = 32
)

// Version is a protocol version (spec/qrexec.md §5).
type Version uint32

// The versions that matter.
const (
	OwnVersion       Version = 4 // what we send on control and data channels
	MinVersion       Version = 2 // the oldest agent
	ClientVersion    Version = 3 // constant on the local sockets
	maxChunk2                = 4096
	maxChunk                 = 65536
	MaxDataChunk             = maxChunk // largest payload of any version
	versionBigChunks Version = 3
)

// Chunk is the longest payload of one data message at version v.
func (v Version) Chunk() int {
	if v >= versionBigChunks {
		return maxChunk
	}
	return maxChunk2
}

// Negotiate returns the version that two ends use: the smaller of both.
func Negotiate(own, peer, min Version) (Version, error) {
	if peer < min {
		return 0, fmt.Errorf("the peer speaks version %d, at least %d is needed", peer, min)
	}
	if peer < own {
		return peer, nil
	}
	return own, nil
}

// Header stands before every body.
type Header struct {
	Type   Type
	Length uint32 // of the body
}

// AppendTo appends the header's wire form to b.
func (h Header) AppendTo(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(h.Type))
	return binary.LittleEndian.AppendUint32(b, h.Length)
}

// ParseHeader reads a header from the first HeaderSize bytes of b.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("header of %d bytes", len(b))
	}
	return Header{Type(binary.LittleEndian.Uint32(b)), binary.LittleEndian.Uint32(b[4:])}, nil
}

// Peer is who sends the messages that we read.
type Peer int

// The senders, by the connection on which they send.
const (
	Agent         Peer = iota // a qube's agent, on the control channel
	Daemon                    // the daemon, on the control channel
	Client                    // a program of dom0, on the daemon's local socket
	DaemonAnswer              // the daemon, on its local socket
	TriggerClient             // a program of the qube, on its agent's trigger socket
)

// ErrProtocol is wrapped by every error about what a peer sent.
var ErrProtocol = errors.New("protocol error")

func protocolf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}

// bounds returns the lengths that a body of type t may have when it comes
// from p at version v.
func (p Peer) bounds(t Type, v Version) (min, max uint32, ok bool) {
	switch p {
	case Agent:
		switch {
		case t == ConnectionTerminated:
			return execFixed, execFixed, true
		case t == TriggerService && v == 2:
			return trigger2Size, trigger2Size, true
		case t == TriggerService3 && v >= 3:
			return trigger3Fixed + 1, trigger3Fixed + MaxServiceName, true
		case t == TriggerService4 && v >= 4:
			return trigger4Fixed + 1, trigger4Fixed + MaxServiceName, true
		}
	case Daemon:
		switch t {
		case ExecCmdline, JustExec:
			return execFixed + 1, MaxExecBody, true
		case ServiceConnect:
			return execFixed + IdentSize, execFixed + IdentSize, true
		case ServiceRefused:
			return IdentSize, IdentSize, true
		}
	case Client:
		switch t {
		case ExecCmdline, JustExec:
			return execFixed + 1, MaxExecBody, true
		case ServiceConnect:
			return execFixed + IdentSize, execFixed + IdentSize, true
		}
	case DaemonAnswer:
		switch t {
		case ExecCmdline, JustExec, ServiceConnect:
			return execFixed, execFixed, true
		}
	case TriggerClient:
		if t == TriggerService4 {
			return trigger4Fixed + 1, trigger4Fixed + MaxServiceName, true
		}
	}
	return 0, 0, false
}

// ReadMessage reads one message of peer p at version v. A type that p may not
// send or a length that it may not have is an ErrProtocol before the body is
// read. An unbroken end is io.EOF.
func ReadMessage(r io.Reader, p Peer, v Version) (Type, []byte, error) {
	var hb [HeaderSize]byte
	if _, err := io.ReadFull(r, hb[:]); err != nil {
		return 0, nil, err
	}
	h, err := ParseHeader(hb[:])
	if err != nil {
		return 0, nil, err
	}
	min, max, ok := p.bounds(h.Type, v)
	if !ok {
		return 0, nil, protocolf("%v is not expected at version %d", h.Type, v)
	}
	if h.Length < min || h.Length > max {
		return 0, nil, protocolf("%v with a body of %d bytes (%d to %d)", h.Type, h.Length, min, max)
	}
	body := make([]byte, h.Length)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, noEOF(err)
	}
	return h.Type, body, nil
}

// noEOF turns an end in the middle of a message into io.ErrUnexpectedEOF.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Message returns the wire form of one message.
func Message(t Type, body []byte) []byte {
	b := make([]byte, 0, HeaderSize+len(body))
	b = Header{t, uint32(len(body))}.AppendTo(b)
	return append(b, body...)
}

// HelloMessage returns the wire form of a hello with version v.
func HelloMessage(v Version) []byte {
	return Message(Hello, binary.LittleEndian.AppendUint32(nil, uint32(v)))
}

// ReadHello reads a hello and returns the peer's version.
func ReadHello(r io.Reader) (Version, error) {
	var b [HeaderSize + 4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	h, err := ParseHeader(b[:])
	if err != nil {
		return 0, err
	}
	if h.Type != Hello || h.Length != 4 {
		return 0, protocolf("%v with a body of %d bytes instead of a hello", h.Type, h.Length)
	}
	return Version(binary.LittleEndian.Uint32(b[HeaderSize:])), nil
}
