package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Version is a protocol version: major<<16 | minor.
type Version uint32

// Current is the version that this package speaks.
const Current Version = 1<<16 | 8

const (
	version1_4 Version = 1<<16 | 4
	version1_5 Version = 1<<16 | 5
	version1_6 Version = 1<<16 | 6
	version1_7 Version = 1<<16 | 7
	version1_8 Version = 1<<16 | 8
)

// Major is the part that both sides must share.
func (v Version) Major() uint16 { return uint16(v >> 16) }

// Minor is the part that is negotiated down to the lower one.
func (v Version) Minor() uint16 { return uint16(v) }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major(), v.Minor()) }

// AnswersDestroy tells whether the daemon answers DESTROY (spec §3, 1.5).
func (v Version) AnswersDestroy() bool { return v >= version1_5 }

// AcksDumps tells whether the daemon answers WINDOW_DUMP (spec §3, 1.7).
func (v Version) AcksDumps() bool { return v >= version1_7 }

// VersionError is a peer that speaks another major version, or an answer that
// an agent may not accept.
type VersionError struct{ Peer Version }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the peer speaks GUI protocol %v, we speak %v", e.Peer, Current)
}

// Negotiate returns the version of a session with an agent whose highest
// version is agent (spec/gui-protocol.md §2). The error is a *VersionError.
func Negotiate(agent Version) (Version, error) {
	if agent.Major() != Current.Major() {
		return 0, &VersionError{agent}
	}
	return min(agent, Current), nil
}

// XConf tells an agent about the daemon's screen.
type XConf struct {
	Width, Height uint32 // of the root window in pixels, Width rounded up to 8
	Depth         uint32 // of the root window in bits
	Mem           uint32 // KiB of video memory that the screen needs
}

// NewXConf describes a root window of that size and depth.
func NewXConf(width, height, depth uint32) XConf {
	width = (width + 7) &^ 7
	return XConf{width, height, depth, width*height*4/1024 + 1}
}

// DaemonHandshake is the daemon's side: it reads the agent's version and
// answers. An agent of another major version is a *VersionError.
func DaemonHandshake(rw io.ReadWriter, conf XConf) (Version, error) {
	var b [4]byte
	if _, err := io.ReadFull(rw, b[:]); err != nil {
		return 0, fmt.Errorf("GUI handshake: read the agent's version: %w", err)
	}
	v, err := Negotiate(Version(binary.LittleEndian.Uint32(b[:])))
	if err != nil {
		return 0, fmt.Errorf("GUI handshake: %w", err)
	}
	var out []byte
	if v >= version1_4 {
		out = binary.LittleEndian.AppendUint32(out, uint32(v))
	}
	out = appendFixed(out, conf)
	if _, err := rw.Write(out); err != nil {
		return 0, fmt.Errorf("GUI handshake: answer: %w", err)
	}
	return v, nil
}

// AgentHandshake is the agent's side: it offers Current and reads the
// daemon's choice. A choice that it cannot accept is a *VersionError.
func AgentHandshake(rw io.ReadWriter) (Version, XConf, error) {
	if _, err := rw.Write(binary.LittleEndian.AppendUint32(nil, uint32(Current))); err != nil {
		return 0, XConf{}, fmt.Errorf("GUI handshake: offer our version: %w", err)
	}
	var b [20]byte
	if _, err := io.ReadFull(rw, b[:]); err != nil {
		return 0, XConf{}, fmt.Errorf("GUI handshake: read the daemon's answer: %w", err)
	}
	u := binary.LittleEndian.Uint32
	v := Version(u(b[:]))
	if v > Current || v < version1_4 || v.Major() != Current.Major() {
		return 0, XConf{}, fmt.Errorf("GUI handshake: %w", &VersionError{v})
	}
	return v, XConf{u(b[4:]), u(b[8:]), u(b[12:]), u(b[16:])}, nil
}
