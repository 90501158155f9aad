// Package client calls the Admin API: from dom0 over run/qubesd.sock, from a
// qube over qrexec (spec/admin-api.md §1).
//
// Most callers use New and the typed calls: List and Table for qubes, Property
// and its neighbours, Volume…, Device…. Call is for every other method, Events
// for streams. A qubesd that is not ours is served as well: where a call of our
// own is not known there, upstream's calls take its place.
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

// Missing reports whether the server does not know the method that was
// called, or does not let us call it: both look alike from outside.
func Missing(err error) bool {
	return Is(err, "ProtocolError") || Is(err, "PermissionDenied") || Is(err, "QubesDaemonAccessError")
}

// Client calls one qubesd; each call is a connection of its own.
type Client struct {
	// Socket is the path of qubesd's socket.
	Socket string
	// Internal is the path of the socket for dom0's trusted helpers; only the
	// import of volumes uses it, and does without where it may not.
	Internal string
	// Remote makes the calls where there is no such socket: in a qube.
	Remote Remote
}

// New returns the client of the system with that root folder.
func New(root paths.Root) *Client {
	return &Client{Socket: root.Qubesd(), Internal: root.QubesdInternal()}
}

// Call calls a method and returns the text of the reply. Dest is a qube's
// name or uuid:UUID. The context ends the waiting, not the call.
func (c *Client) Call(ctx context.Context, dest, method, arg string, payload []byte) (string, error) {
	return c.exchange(ctx, dest, method, arg, bytes.NewReader(payload))
}

// exchange sends a request and returns the text of the reply.
func (c *Client) exchange(ctx context.Context, dest, method, arg string, payload io.Reader) (string, error) {
	if c.Remote != nil {
		return c.exchangeRemote(ctx, dest, method, service(method, arg), payload)
	}
	return c.exchangeLocal(ctx, head(dest, method, arg), payload)
}

// exchangeLocal sends a request with a header of its own.
func (c *Client) exchangeLocal(ctx context.Context, head string, payload io.Reader) (string, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return "", unreachable(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	// A server that dislikes the request may hang up before it was sent; its
	// reply, if any, tells more than the failed write.
	werr := send(conn, head, payload)
	raw, err := io.ReadAll(io.LimitReader(conn, maxReply+1))
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil && len(raw) == 0:
		return "", unreachable(errors.Join(werr, err))
	}
	return wholeReply(raw)
}

// wholeReply reads all that a server has replied.
func wholeReply(raw []byte) (string, error) {
	switch {
	case len(raw) > maxReply:
		return "", unreachable(errors.New("the reply is too long"))
	case len(raw) == 0:
		return "", &Error{"QubesDaemonAccessError", "got empty response from qubesd"}
	}
	return parseReply(raw)
}

// service is a method as a service of qrexec.
func service(method, arg string) string {
	if arg != "" {
		method += "+" + arg
	}
	return method
}

// head is the header of a request of dom0's.
func head(dest, method, arg string) string {
	return service(method, arg) + " dom0 name " + dest + "\x00"
}

// send sends a request and tells that it is whole (spec/admin-api.md §1).
func send(conn *net.UnixConn, head string, payload io.Reader) error {
	if _, err := io.Copy(conn, io.MultiReader(strings.NewReader(head), payload)); err != nil {
		return err
	}
	return conn.CloseWrite()
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

// longestPath is what a socket's address holds of a path, in bytes
// (unix(7)).
const longestPath = 107

// dial connects, to a path that is too long for a socket's address through
// the socket's folder.
func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	path := c.Socket
	if len(path) > longestPath {
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		path = "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // the address says nothing
		}
		return nil, fmt.Errorf("%s: %w", c.Socket, err)
	}
	return conn.(*net.UnixConn), nil
}
