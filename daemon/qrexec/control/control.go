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
//
// qrexecd keeps the qubes' databases (package daemon/qubesdb), because qubes
// write to them. Update carries what dom0 has to say there: after each Up
// all of it, then every change. qubesd asks with Query what is in a database,
// which Answer tells, and hears with Wrote that a qube wrote something that
// dom0 acts upon.
//
// A call that a qube makes is a question: qrexecd asks with Asked, and qubesd
// answers with Decided when the policy and, where it wants that, a person
// have decided and the target runs. Ended tells that the call is over, or
// that its caller gave up before the verdict. A number names one call of one
// qrexecd. What was asked on a lost connection is refused; what was allowed
// goes on: the next Hello names it as one of Running, and its Ended is told on
// that connection.
package control

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"cubicle/daemon/qubesdb"
	"cubicle/daemon/vchan"
)

// Kind is the kind of a message.
type Kind string

// The kinds of messages.
const (
	Hello     Kind = "hello"     // qrexecd → qubesd, first: Running
	Up        Kind = "up"        // qubesd → qrexecd: Qube is set
	Down      Kind = "down"      // qubesd → qrexecd: Domain is set
	Synced    Kind = "synced"    // qubesd → qrexecd: all running qubes were told
	Listening Kind = "listening" // qrexecd → qubesd: Domain; Error when it failed
	Ready     Kind = "ready"     // qrexecd → qubesd: Domain, Version
	Lost      Kind = "lost"      // qrexecd → qubesd: Domain

	Update Kind = "update" // qubesd → qrexecd: Domain, Whole, Changes
	Query  Kind = "query"  // qubesd → qrexecd: Domain, Query, Path
	Answer Kind = "answer" // qrexecd → qubesd: Query, Entries; Error when it failed
	Wrote  Kind = "wrote"  // qrexecd → qubesd: Domain, Path

	Asked   Kind = "asked"   // qrexecd → qubesd: Call
	Decided Kind = "decided" // qubesd → qrexecd: Verdict
	Ended   Kind = "ended"   // qrexecd → qubesd: End
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

// Call is a qube's wish to call a service (spec/qrexec.md §7.2), with names
// that are cleaned already (§9).
type Call struct {
	Number  uint64       `json:"number"`
	Source  vchan.Domain `json:"source"`
	Service string       `json:"service"` // SERVICE, or SERVICE+ARGUMENT
	Target  string       `json:"target"`  // as asked for; may be empty
	// RequestedSource is for whom a relay calls; nil where the caller's
	// version of the protocol has no such field.
	RequestedSource *string `json:"requested_source,omitempty"`
}

// Verdict is the answer to a Call. An allowed call goes to a domain whose
// agent is ready, or to dom0's own services.
type Verdict struct {
	Number  uint64       `json:"number"`
	Allowed bool         `json:"allowed"`
	Target  vchan.Domain `json:"target,omitempty"`  // 0: dom0
	Command string       `json:"command,omitempty"` // USER:QUBESRPC …; without USER: for dom0 (spec/qrexec.md §6)
	Reason  string       `json:"reason,omitempty"`  // for the log, of a refusal
}

// Running is a call that was allowed on an earlier connection and goes on.
type Running struct {
	Number  uint64       `json:"number"`
	Source  vchan.Domain `json:"source"`
	Service string       `json:"service"` // SERVICE, or SERVICE+ARGUMENT
	Target  vchan.Domain `json:"target"`  // 0: dom0
}

// End is what became of a call. Times are in nanoseconds.
type End struct {
	Number  uint64 `json:"number"`
	Connect int64  `json:"connect,omitempty"` // verdict → both ends of the data channel are there
	Service int64  `json:"service,omitempty"` // from there to its end
	Error   string `json:"error,omitempty"`   // why it did not come to an orderly end
}

// Message is one line.
type Message struct {
	Kind    Kind         `json:"kind"`
	Qube    *Qube        `json:"qube,omitempty"`
	Domain  vchan.Domain `json:"domain,omitempty"`
	Version uint32       `json:"version,omitempty"` // negotiated qrexec version
	Error   string       `json:"error,omitempty"`

	Whole   bool              `json:"whole,omitempty"` // Changes are all that dom0 has to say
	Changes []qubesdb.Change  `json:"changes,omitempty"`
	Query   uint64            `json:"query,omitempty"` // number of a query
	Path    string            `json:"path,omitempty"`  // a prefix, or an entry
	Entries map[string][]byte `json:"entries,omitempty"`

	Call    *Call    `json:"call,omitempty"`
	Verdict *Verdict `json:"verdict,omitempty"`
	End     *End     `json:"end,omitempty"`

	Running []Running `json:"running,omitempty"`
}

// Watched are the entries by which a qube tells dom0 something: when it
// writes one of them, qubesd hears of it (spec/platform.md §3.2).
func Watched() []string {
	return []string{"/qubes-block-devices", "/qubes-usb-devices", "/webcam-devices"}
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
