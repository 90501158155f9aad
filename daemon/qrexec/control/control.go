// Package control is the conversation between qubesd and qrexecd. qubesd
// listens on paths.Root.Router; qrexecd dials it, also again after either of
// them was restarted. Both are ours and trust each other; each message is a
// JSON object on a line.
//
// qubesd sends Up for every qube whose machine is or is about to be up (all
// of them after a connect, then Synced), and Down when the machine is gone.
// qrexecd answers Up with Listening as soon as the qube's link socket exists,
// and tells with Ready and Lost whether the qube's qrexec agent has said
// hello.
package control

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"cubicle/daemon/vchan"
)

// Kind is the kind of a message.
type Kind string

// The kinds of messages.
const (
	Hello     Kind = "hello"     // qrexecd → qubesd, first
	Up        Kind = "up"        // qubesd → qrexecd: Qube is set
	Down      Kind = "down"      // qubesd → qrexecd: Domain is set
	Synced    Kind = "synced"    // qubesd → qrexecd: all running qubes were told
	Listening Kind = "listening" // qrexecd → qubesd: Domain; Error when it failed
	Ready     Kind = "ready"     // qrexecd → qubesd: Domain, Version
	Lost      Kind = "lost"      // qrexecd → qubesd: Domain
)

// Qube is what qrexecd knows of a qube.
type Qube struct {
	Domain      vchan.Domain `json:"domain"`
	Name        string       `json:"name"`
	UUID        string       `json:"uuid"`
	DefaultUser string       `json:"default_user"`
	// LinkDir is the folder in which qrexecd listens for the qube's link, or
	// empty for a qube that comes over upstream's sockets in paths.Root.Vchan.
	LinkDir string `json:"link_dir,omitempty"`
}

// Message is one line.
type Message struct {
	Kind    Kind         `json:"kind"`
	Qube    *Qube        `json:"qube,omitempty"`
	Domain  vchan.Domain `json:"domain,omitempty"`
	Version uint32       `json:"version,omitempty"` // negotiated qrexec version
	Error   string       `json:"error,omitempty"`
}

// Conn sends and receives messages on a stream. Send is safe for concurrent
// use; Receive is for one reader.
type Conn struct {
	dec *json.Decoder
	mu  sync.Mutex // guards enc
	enc *json.Encoder
}

// NewConn returns a Conn over rw.
func NewConn(rw io.ReadWriter) *Conn {
	return &Conn{dec: json.NewDecoder(rw), enc: json.NewEncoder(rw)}
}

// Send writes one message.
func (c *Conn) Send(m Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.enc.Encode(m); err != nil {
		return fmt.Errorf("send %s: %w", m.Kind, err)
	}
	return nil
}

// Receive reads one message; io.EOF is an orderly end.
func (c *Conn) Receive() (Message, error) {
	var m Message
	if err := c.dec.Decode(&m); err != nil {
		return Message{}, err
	}
	return m, nil
}
