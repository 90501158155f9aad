package wire

import (
	"fmt"
	"strings"
)

// Command is the command line of an exec message (spec/qrexec.md §6).
type Command struct {
	User  string // empty in commands to dom0's own executor
	NoGUI bool   // neither wait for a graphical session nor use it
	Line  string // for the user's shell, when RPC is nil
	RPC   *RPC
}

// RPC is a call of a service.
type RPC struct {
	Service     string // without argument
	Argument    string
	HasArgument bool   // there was a '+', perhaps with nothing after it
	Source      string // the caller's name
	TargetType  string // "name", "keyword" or empty
	Target      string // the target that was asked for, without '@'
}

const rpcMark = "QUBESRPC "

// ParseCommand reads a command that an agent gets: USER:COMMAND,
// USER:nogui:COMMAND, or either with QUBESRPC and a service.
func ParseCommand(s string) (Command, error) {
	user, line, ok := strings.Cut(s, ":")
	if !ok {
		return Command{}, protocolf("a command without a user")
	}
	if user == "" {
		return Command{}, protocolf("a command with an empty user")
	}
	c, err := ParseLocalCommand(line)
	c.User = user
	return c, err
}

// ParseLocalCommand reads a command without its USER part.
func ParseLocalCommand(line string) (Command, error) {
	var c Command
	if rest, ok := strings.CutPrefix(line, "nogui:"); ok {
		c.NoGUI, line = true, rest
	}
	desc, ok := strings.CutPrefix(line, rpcMark)
	if !ok {
		if line == "" {
			return c, protocolf("an empty command")
		}
		c.Line = line
		return c, nil
	}
	rpc, err := ParseRPC(desc)
	c.RPC = rpc
	return c, err
}

// ParseRPC reads a service descriptor: what follows QUBESRPC, single spaces
// between its two or four words.
func ParseRPC(desc string) (*RPC, error) {
	words := strings.Split(desc, " ")
	for _, w := range words {
		if w == "" {
			return nil, protocolf("a service descriptor with an empty word")
		}
	}
	var r RPC
	switch len(words) {
	case 2:
	case 4:
		r.TargetType, r.Target = words[2], words[3]
		if r.TargetType != "name" && r.TargetType != "keyword" {
			return nil, protocolf("a service descriptor with an unknown type of target")
		}
	default:
		return nil, protocolf("a service descriptor of %d words", len(words))
	}
	r.Service, r.Argument, r.HasArgument = strings.Cut(words[0], "+")
	r.Source = words[1]
	if err := checkFileName(r.Service, MaxBareService); err != nil {
		return nil, err
	}
	return &r, nil
}

// checkFileName refuses what cannot be the file of a service: the name and
// its argument become a file name.
func checkFileName(s string, max int) error {
	switch {
	case s == "":
		return protocolf("an empty service name")
	case len(s) > max:
		return protocolf("a service name of %d bytes", len(s))
	case strings.ContainsAny(s, "/\x00"), s == ".", s == "..":
		return protocolf("a service name that is no file name")
	}
	return nil
}

// FullName is SERVICE+ARG, without the '+' if there was none.
func (r *RPC) FullName() string {
	if r.HasArgument {
		return r.Service + "+" + r.Argument
	}
	return r.Service
}

// Descriptor is what a socket service reads first, without its NUL.
func (r *RPC) Descriptor() string {
	d := r.FullName() + " " + r.Source
	if r.TargetType != "" {
		d += " " + r.TargetType + " " + r.Target
	}
	return d
}

// String is the wire form of the command.
func (c Command) String() string {
	var b strings.Builder
	if c.User != "" {
		b.WriteString(c.User + ":")
	}
	if c.NoGUI {
		b.WriteString("nogui:")
	}
	if c.RPC != nil {
		b.WriteString(rpcMark + c.RPC.Descriptor())
	} else {
		b.WriteString(c.Line)
	}
	return b.String()
}

// DefaultUser stands for the qube's default user in a command.
const DefaultUser = "DEFAULT"

// ForAgent turns the command of a local client into the one for the agent: it
// puts the default user in the place of DEFAULT and appends '+' to a service
// without argument (spec/qrexec.md §6).
func ForAgent(cmd, defaultUser string) (string, error) {
	c, err := ParseCommand(cmd)
	if err != nil {
		return "", err
	}
	if c.User == DefaultUser {
		if defaultUser == "" {
			return "", fmt.Errorf("the qube has no default user")
		}
		c.User = defaultUser
	}
	if c.RPC != nil {
		c.RPC.HasArgument = true
	}
	return c.String(), nil
}
