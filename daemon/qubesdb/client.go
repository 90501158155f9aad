package qubesdb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cubicle/daemon/vchan"
)

// The folder of the sockets in a qube, and in dom0 below its root
// (paths.Root.RunQubes).
const Dir = "/run/qubes"

// SocketNames are a database's two sockets: the one to write to, and the one
// that everybody may read. An empty name is the machine's own database.
func SocketNames(name string) (rw, ro string) {
	if name != "" {
		name = "." + name
	}
	return "qubesdb" + name + ".sock", "qubesdb" + name + ".ro.sock"
}

// ErrNoEntry is the error of an entry that is not there.
var ErrNoEntry = errors.New("no such entry")

// ErrRefused is the error of a request that the database refuses: a bad path
// or value, or writing where one may only read.
var ErrRefused = errors.New("refused")

// Client is a program's connection to a database. It is for one goroutine.
type Client struct {
	conn   net.Conn
	r      *bufio.Reader
	events []string
}

// Dial connects to the database of that name below the folder dir; an empty
// name is the machine's own. A user who may not write gets a connection that
// only reads.
func Dial(dir, name string) (*Client, error) {
	rw, ro := SocketNames(name)
	conn, err := vchan.DialOnce(filepath.Join(dir, rw))
	if errors.Is(err, unix.EACCES) {
		conn, err = vchan.DialOnce(filepath.Join(dir, ro))
	}
	if err != nil {
		return nil, fmt.Errorf("the database: %w", err)
	}
	return &Client{conn: conn, r: bufio.NewReader(conn)}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// ask sends a message and returns its first reply; events that come before it
// are kept.
func (c *Client) ask(m Message) (Message, error) {
	if _, err := c.conn.Write(m.AppendTo(nil)); err != nil {
		return Message{}, fmt.Errorf("the database: %w", err)
	}
	return c.answer(m.Path)
}

func (c *Client) answer(path string) (Message, error) {
	for {
		m, err := ReadMessage(c.r)
		if err != nil {
			return Message{}, fmt.Errorf("the database: %w", err)
		}
		switch m.Type {
		case WatchEvent:
			c.events = append(c.events, m.Path)
		case NoEntry:
			return Message{}, fmt.Errorf("%s: %w", path, ErrNoEntry)
		case Failed:
			return Message{}, fmt.Errorf("%s: %w", path, ErrRefused)
		default:
			return m, nil
		}
	}
}

// expect is ask for a reply of one kind.
func (c *Client) expect(m Message, t Type) (Message, error) {
	reply, err := c.ask(m)
	if err == nil && reply.Type != t {
		err = fmt.Errorf("the database answered with a message of type %d", reply.Type)
	}
	return reply, err
}

// Read returns an entry's value, or ErrNoEntry.
func (c *Client) Read(path string) (string, error) {
	if err := CheckPath(path); err != nil {
		return "", err
	}
	m, err := c.expect(Message{Type: Read, Path: path}, ReadReply)
	return m.Data, err
}

// Entry is one of a database.
type Entry struct{ Path, Value string }

// MultiRead returns the entries whose path begins with prefix, by path; all,
// by path backwards, when the prefix is empty.
func (c *Client) MultiRead(prefix string) ([]Entry, error) {
	return c.series(Message{Type: MultiRead, Path: prefix}, MultiReadReply)
}

// List is MultiRead without the values.
func (c *Client) List(prefix string) ([]string, error) {
	entries, err := c.series(Message{Type: List, Path: prefix}, ListReply)
	var paths []string
	for _, e := range entries {
		paths = append(paths, e.Path)
	}
	return paths, err
}

func (c *Client) series(m Message, t Type) ([]Entry, error) {
	if err := checkBytes(m.Path); err != nil {
		return nil, err
	}
	var entries []Entry
	reply, err := c.ask(m)
	for ; err == nil; reply, err = c.answer(m.Path) {
		if reply.Type != t {
			return nil, fmt.Errorf("the database answered with a message of type %d", reply.Type)
		}
		if reply.Path == "" {
			return entries, nil
		}
		entries = append(entries, Entry{reply.Path, reply.Data})
	}
	return nil, err
}

// Write stores an entry.
func (c *Client) Write(path, value string) error {
	if err := errors.Join(CheckPath(path), CheckValue(value)); err != nil {
		return err
	}
	_, err := c.expect(Message{Type: Write, Path: path, Data: value}, OK)
	return err
}

// Remove removes an entry or, when the path ends in "/", all that is below
// it. ErrNoEntry when there is nothing.
func (c *Client) Remove(path string) error { return c.subtree(Remove, path) }

// Watch asks for events about an entry or, when the path ends in "/", about
// all that is below it.
func (c *Client) Watch(path string) error { return c.subtree(Watch, path) }

// Unwatch takes it back.
func (c *Client) Unwatch(path string) error { return c.subtree(Unwatch, path) }

func (c *Client) subtree(t Type, path string) error {
	m := Message{Type: t, Path: path}
	if err := m.check(); err != nil {
		return err
	}
	_, err := c.expect(m, OK)
	return err
}

// Next waits for the next event and returns the path that has changed. The
// end of ctx closes the connection.
func (c *Client) Next(ctx context.Context) (string, error) {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	for len(c.events) == 0 {
		m, err := ReadMessage(c.r)
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err != nil {
			return "", fmt.Errorf("the database: %w", err)
		}
		if m.Type != WatchEvent {
			return "", fmt.Errorf("the database said something unasked, a message of type %d", m.Type)
		}
		c.events = append(c.events, m.Path)
	}
	path := c.events[0]
	c.events = c.events[1:]
	return path, nil
}
