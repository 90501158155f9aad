// Package client calls the Admin API from dom0 over run/qubesd.sock
// (spec/admin-api.md §1).
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"cubicle/daemon/paths"
)

// maxReply bounds what is read of a reply in bytes: a GetAll of very many
// qubes has a few MiB.
const maxReply = 64 << 20

// Error is an exception that qubesd replied with.
type Error struct {
	Type    string // the exception's name (spec/admin-api.md §1.2)
	Message string
}

func (e *Error) Error() string { return e.Message }

// Is reports whether err is an exception of that name.
func Is(err error, name string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Type == name
}

// Client calls one qubesd; each call is a connection of its own.
type Client struct {
	// Socket is the path of qubesd's socket.
	Socket string
}

// New returns the client of the system with that root folder.
func New(root paths.Root) *Client { return &Client{Socket: root.Qubesd()} }

// Call calls a method as dom0 and returns the text of the reply. Dest is a
// qube's name or uuid:UUID. The context ends the waiting, not the call.
func (c *Client) Call(ctx context.Context, dest, method, arg string, payload []byte) (string, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return "", unreachable(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if arg != "" {
		method += "+" + arg
	}
	request := append([]byte(method+" dom0 name "+dest+"\x00"), payload...)
	// A server that dislikes the request may hang up before it was sent; its
	// reply, if any, tells more than the failed write.
	_, werr := conn.Write(request)
	if werr == nil {
		werr = conn.CloseWrite()
	}
	raw, err := io.ReadAll(io.LimitReader(conn, maxReply+1))
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil && len(raw) == 0:
		return "", unreachable(errors.Join(werr, err))
	case len(raw) > maxReply:
		return "", unreachable(fmt.Errorf("the reply to %s is too long", method))
	case len(raw) == 0:
		return "", &Error{"QubesDaemonAccessError", "got empty response from qubesd"}
	}
	return parseReply(raw)
}

func unreachable(err error) error {
	return &Error{"QubesDaemonCommunicationError", fmt.Sprintf("failed to connect to qubesd service: %v", err)}
}

// parseReply reads a whole reply other than events.
func parseReply(raw []byte) (string, error) {
	kind, rest, ok := bytes.Cut(raw, []byte{0})
	switch {
	case ok && string(kind) == "0":
		return string(rest), nil
	case ok && string(kind) == "2":
		fields := strings.Split(string(rest), "\x00")
		if len(fields) < 4 || fields[0] == "" {
			break
		}
		return "", &Error{fields[0], format(fields[2], fields[3:len(fields)-1])}
	}
	return "", &Error{"QubesDaemonCommunicationError", fmt.Sprintf("unexpected reply from qubesd: %.64q", raw)}
}

// format substitutes %s and %d in a message by the fields; %% is a %.
func format(message string, fields []string) string {
	var b strings.Builder
	for i := 0; i < len(message); i++ {
		if message[i] != '%' || i+1 == len(message) {
			b.WriteByte(message[i])
			continue
		}
		i++
		switch c := message[i]; {
		case c == '%':
			b.WriteByte('%')
		case (c == 's' || c == 'd' || c == 'r') && len(fields) > 0:
			b.WriteString(fields[0])
			fields = fields[1:]
		default:
			b.WriteByte('%')
			b.WriteByte(c)
		}
	}
	return b.String()
}

// dial connects through the socket's folder, because its path may be longer
// than a socket's address.
func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	dir, err := os.Open(filepath.Dir(c.Socket))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(dir.Fd()))+"/"+filepath.Base(c.Socket))
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // the address says nothing
		}
		return nil, fmt.Errorf("%s: %w", c.Socket, err)
	}
	return conn.(*net.UnixConn), nil
}

// Qube is a line of admin.vm.List.
type Qube struct {
	Name, Class, State, UUID string
}

// List are all qubes, dom0 first, then by name.
func (c *Client) List(ctx context.Context) ([]Qube, error) {
	text, err := c.Call(ctx, "dom0", "admin.vm.List", "", nil)
	if err != nil {
		return nil, err
	}
	var list []Qube
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		q := Qube{Name: words[0]}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			switch key {
			case "class":
				q.Class = value
			case "state":
				q.State = value
			case "uuid":
				q.UUID = value
			}
		}
		list = append(list, q)
	}
	return list, nil
}

// Property is a property as the Admin API tells it.
type Property struct {
	Name    string
	Default bool
	Type    string
	Value   string
}

// Properties are all properties of a qube by name; dest empty: those of the
// system.
func (c *Client) Properties(ctx context.Context, dest string) (map[string]Property, error) {
	text, err := c.property(ctx, dest, "GetAll", "", nil)
	if err != nil {
		return nil, err
	}
	all := map[string]Property{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok {
			continue
		}
		p := parseProperty(strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(rest))
		p.Name = name
		all[name] = p
	}
	return all, nil
}

// Property is one property.
func (c *Client) Property(ctx context.Context, dest, name string) (Property, error) {
	text, err := c.property(ctx, dest, "Get", name, nil)
	if err != nil {
		return Property{}, err
	}
	p := parseProperty(text)
	p.Name = name
	return p, nil
}

// SetProperty sets a property.
func (c *Client) SetProperty(ctx context.Context, dest, name, value string) error {
	_, err := c.property(ctx, dest, "Set", name, []byte(value))
	return err
}

// ResetProperty puts a property back to its default.
func (c *Client) ResetProperty(ctx context.Context, dest, name string) error {
	_, err := c.property(ctx, dest, "Reset", name, nil)
	return err
}

// PropertyHelp says what a property means.
func (c *Client) PropertyHelp(ctx context.Context, dest, name string) (string, error) {
	return c.property(ctx, dest, "Help", name, nil)
}

func (c *Client) property(ctx context.Context, dest, what, name string, payload []byte) (string, error) {
	method := "admin.vm.property." + what
	if dest == "" {
		dest, method = "dom0", "admin.property."+what
	}
	return c.Call(ctx, dest, method, name, payload)
}

// parseProperty reads "default=True|False type=T VALUE".
func parseProperty(text string) Property {
	def, rest, _ := strings.Cut(text, " ")
	typ, value, _ := strings.Cut(rest, " ")
	return Property{Default: def == "default=True", Type: strings.TrimPrefix(typ, "type="), Value: value}
}
