package wire

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"

	"cubicle/daemon/vchan"
)

// Exec is the body of EXEC_CMDLINE and JUST_EXEC, and without a command that
// of CONNECTION_TERMINATED and of the daemon's answers on its local socket.
type Exec struct {
	Domain  vchan.Domain // the other end of the data channel
	Port    vchan.Port
	Command string
}

// Message returns the wire form: the command with its NUL, or none at all
// when it is empty.
func (e Exec) Message(t Type) []byte {
	n := execFixed
	if e.Command != "" {
		n += len(e.Command) + 1
	}
	b := make([]byte, 0, HeaderSize+n)
	b = Header{t, uint32(n)}.AppendTo(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(e.Domain))
	b = binary.LittleEndian.AppendUint32(b, uint32(e.Port))
	if e.Command != "" {
		b = append(b, e.Command...)
		b = append(b, 0)
	}
	return b
}

// ParseExec reads an exec body. A command must end in its only NUL.
func ParseExec(body []byte) (Exec, error) {
	e, rest, err := parseExecFixed(body)
	if err != nil || len(rest) == 0 {
		return e, err
	}
	e.Command, err = text(rest, "command")
	return e, err
}

func parseExecFixed(body []byte) (Exec, []byte, error) {
	if len(body) < execFixed {
		return Exec{}, nil, protocolf("exec body of %d bytes", len(body))
	}
	e := Exec{
		Domain: vchan.Domain(binary.LittleEndian.Uint32(body)),
		Port:   vchan.Port(binary.LittleEndian.Uint32(body[4:])),
	}
	return e, body[execFixed:], nil
}

// Connect is the body of SERVICE_CONNECT.
type Connect struct {
	Domain vchan.Domain
	Port   vchan.Port
	Ident  Ident
}

// Message returns the wire form.
func (c Connect) Message() []byte {
	b := Header{ServiceConnect, execFixed + IdentSize}.AppendTo(nil)
	b = binary.LittleEndian.AppendUint32(b, uint32(c.Domain))
	b = binary.LittleEndian.AppendUint32(b, uint32(c.Port))
	return append(b, c.Ident.bytes()...)
}

// ParseConnect reads a SERVICE_CONNECT body.
func ParseConnect(body []byte) (Connect, error) {
	e, rest, err := parseExecFixed(body)
	if err != nil {
		return Connect{}, err
	}
	id, err := ParseIdent(rest)
	return Connect{e.Domain, e.Port, id}, err
}

// Ident names a waiting call of an agent; dom0 echoes it. At most 31 bytes of
// letters, digits and "_-. ".
type Ident string

// ParseIdent reads an ident field of IdentSize bytes.
func ParseIdent(field []byte) (Ident, error) {
	if len(field) != IdentSize {
		return "", protocolf("ident of %d bytes", len(field))
	}
	s, err := paddedText(field, "ident")
	if err != nil {
		return "", err
	}
	for i := 0; i < len(s); i++ {
		if !isAlnum(s[i]) && !strings.ContainsRune("_-. ", rune(s[i])) {
			return "", protocolf("byte %#x in an ident", s[i])
		}
	}
	return Ident(s), nil
}

func (id Ident) bytes() []byte {
	var b [IdentSize]byte
	copy(b[:IdentSize-1], id)
	return b[:]
}

// RefusedMessage returns the wire form of a SERVICE_REFUSED for id.
func RefusedMessage(id Ident) []byte { return Message(ServiceRefused, id.bytes()) }

// ParseRefused reads a SERVICE_REFUSED body.
func ParseRefused(body []byte) (Ident, error) { return ParseIdent(body) }

// Trigger is the request of a qube's program for a service elsewhere. Texts
// are as sent: clean them (CleanService, CleanTarget) before use.
type Trigger struct {
	Source  string // only for relays; at most 63 bytes
	Target  string // at most 63 bytes
	Service string // with argument
	Ident   Ident
}

// Message returns the wire form of a TRIGGER_SERVICE4.
func (t Trigger) Message() []byte {
	n := trigger4Fixed + len(t.Service) + 1
	b := make([]byte, 0, HeaderSize+n)
	b = Header{TriggerService4, uint32(n)}.AppendTo(b)
	b = appendField(b, t.Source)
	b = appendField(b, t.Target)
	b = append(b, t.Ident.bytes()...)
	b = append(b, t.Service...)
	return append(b, 0)
}

// appendField appends s, cut to 63 bytes, in a field of 64.
func appendField(b []byte, s string) []byte {
	var f [fieldSize]byte
	copy(f[:fieldSize-1], s)
	return append(b, f[:]...)
}

// ParseTrigger reads the body of any TRIGGER_SERVICE message. When only the
// texts are wrong but the ident is good, the trigger holds the ident, so that
// the caller can be refused.
func ParseTrigger(t Type, body []byte) (Trigger, error) {
	var source, target, ident, service []byte
	switch {
	case t == TriggerService && len(body) == trigger2Size:
		service, target, ident = body[:fieldSize], body[fieldSize:fieldSize+target2Size], body[fieldSize+target2Size:]
	case t == TriggerService3 && len(body) > trigger3Fixed:
		target, ident, service = body[:fieldSize], body[fieldSize:trigger3Fixed], body[trigger3Fixed:]
	case t == TriggerService4 && len(body) > trigger4Fixed:
		source, target, ident, service = body[:fieldSize], body[fieldSize:2*fieldSize], body[2*fieldSize:trigger4Fixed], body[trigger4Fixed:]
	default:
		return Trigger{}, protocolf("%v with a body of %d bytes", t, len(body))
	}
	id, err := ParseIdent(ident)
	if err != nil {
		return Trigger{}, err
	}
	tr := Trigger{Ident: id}
	if source != nil {
		if tr.Source, err = paddedText(source, "source"); err != nil {
			return tr, err
		}
	}
	if tr.Target, err = paddedText(target, "target"); err != nil {
		return tr, err
	}
	if t == TriggerService {
		tr.Service, err = paddedText(service, "service")
	} else {
		tr.Service, err = text(service, "service")
	}
	return tr, err
}

// paddedText reads a fixed field: text, a NUL, and nothing but NULs after it.
func paddedText(b []byte, what string) (string, error) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return "", protocolf("%s without its NUL", what)
	}
	for _, c := range b[i:] {
		if c != 0 {
			return "", protocolf("%s with bytes after its NUL", what)
		}
	}
	return string(b[:i]), nil
}

// text reads text that ends in its only NUL.
func text(b []byte, what string) (string, error) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return "", protocolf("%s without its NUL", what)
	}
	if i != len(b)-1 {
		return "", protocolf("%s with bytes after its NUL", what)
	}
	return string(b[:i]), nil
}

// CleanService returns a service name with argument in which every byte
// outside "A-Z a-z 0-9 _ - . +" is '_', or an error for a name that must be
// refused (spec/qrexec.md §9).
func CleanService(s string) (string, error) {
	if s == "" || s[0] == '+' {
		return "", protocolf("a service name that is empty")
	}
	bare, _, _ := strings.Cut(s, "+")
	if len(bare) > MaxBareService {
		return "", protocolf("a service name of %d bytes", len(bare))
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", protocolf("a service name with a NUL in it")
	}
	return clean(s, "_-.+"), nil
}

// CleanTarget returns a target's or source's name in which every byte outside
// "A-Z a-z 0-9 _ - . @ :" is '_' (spec/qrexec.md §9).
func CleanTarget(s string) string { return clean(s, "_-.@:") }

func clean(s, others string) string {
	b := []byte(s)
	for i, c := range b {
		if !isAlnum(c) && strings.IndexByte(others, c) < 0 {
			b[i] = '_'
		}
	}
	return string(b)
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// A program that leaves before dom0 has decided has no channel yet that a
// CONNECTION_TERMINATED could name. Our agent names the call by the number in
// its ident instead, in a domain that cannot exist: our qrexecd then knows that
// nobody waits, and upstream's daemon, which only compares the domain, passes
// over it (spec/qrexec.md §2, §16).
const (
	gaveUpMark   vchan.Domain = 0xc000_0000
	gaveUpPrefix              = "SOCKET"
)

// GaveUpMessage returns the wire form of the end of a call that waits under
// id, or false for an id that is not "SOCKET" and a number below 2^30.
func GaveUpMessage(id Ident) ([]byte, bool) {
	digits, ok := strings.CutPrefix(string(id), gaveUpPrefix)
	n, err := strconv.ParseUint(digits, 10, 30)
	if !ok || err != nil || strconv.FormatUint(n, 10) != digits {
		return nil, false
	}
	return Exec{Domain: gaveUpMark | vchan.Domain(n), Port: vchan.PortDataFirst}.Message(ConnectionTerminated), true
}

// ParseGaveUp returns the name of the call that a GaveUpMessage ends, and
// false for the end of a call that has a channel.
func ParseGaveUp(e Exec) (Ident, bool) {
	if e.Domain&gaveUpMark != gaveUpMark || e.Port != vchan.PortDataFirst {
		return "", false
	}
	return Ident(gaveUpPrefix + strconv.FormatUint(uint64(e.Domain&^gaveUpMark), 10)), true
}
