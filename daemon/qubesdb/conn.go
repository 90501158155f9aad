package qubesdb

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// role is who is at the other end of a connection.
type role uint8

const (
	client role = iota // a local program
	reader             // a local program that may only read
	qube               // the qube, at dom0's end of the channel
	dom0               // dom0, at the qube's end of the channel
)

// Bounds of one connection.
const (
	maxQueue   = 4 << 20 // bytes; a whole dump of a full database fits
	maxWatches = 256
	// hostileRate is how many messages a second a qube may send on average,
	// and hostileBurst how many at once: dom0 has other things to do.
	hostileRate  = 2000
	hostileBurst = 4000
)

// conn is one connection to a DB.
type conn struct {
	db     *DB
	role   role
	stream net.Conn
	out    *queue

	// Guarded by DB.mu:
	watches map[string]struct{}
	// seen are the paths of the dump that dom0 is sending; nil when it is
	// not. Only for role dom0.
	seen map[string]bool
}

func newConn(d *DB, r role, stream net.Conn) *conn {
	return &conn{db: d, role: r, stream: stream, out: newQueue(maxQueue), watches: map[string]struct{}{}}
}

// cut ends the connection without a word.
func (c *conn) cut() { c.stream.Close() }

// serve handles messages until the connection ends, which is no error, or
// the other end breaks the rules.
func (c *conn) serve() error {
	written := make(chan struct{})
	go func() {
		defer close(written)
		if c.out.run(c.stream) != nil {
			c.cut() // the reader tells
		}
	}()
	err := c.read()
	c.db.mu.Lock()
	delete(c.db.conns, c)
	if c.db.peer == c {
		c.db.peer = nil
	}
	c.db.mu.Unlock()
	c.out.close()
	if err != nil {
		c.cut()
	} else {
		// The last replies go out to one who still reads.
		c.stream.SetWriteDeadline(time.Now().Add(time.Second))
	}
	<-written
	c.cut()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (c *conn) read() error {
	var pace pace
	for {
		m, err := ReadMessage(c.stream)
		if errors.Is(err, io.EOF) {
			return nil
		}
		var bad *BadMessage
		switch {
		case err == nil:
			err = c.handle(m)
		case errors.As(err, &bad) && (c.role == client || c.role == reader):
			// A program's mistake is answered; a whole side that breaks the
			// rules cannot be kept in step.
			err = c.reply(Message{Type: Failed, Path: bad.Path})
		}
		if err != nil {
			return err
		}
		if c.role == qube {
			pace.wait()
		}
	}
}

var errSlow = errors.New("replies are not read")

func (c *conn) reply(m ...Message) error {
	if !c.out.put(m...) {
		return errSlow
	}
	return nil
}

// handle carries one message out. An error ends the connection.
func (c *conn) handle(m Message) error {
	c.db.mu.Lock()
	defer c.db.mu.Unlock()
	switch c.role {
	case client, reader:
		return c.local(m)
	case qube:
		return c.fromQube(m)
	default:
		return c.fromDom0(m)
	}
}

// local serves a program on this side; mu is held.
func (c *conn) local(m Message) error {
	d := c.db
	switch m.Type {
	case Read:
		e, ok := d.entries[m.Path]
		if !ok {
			return c.reply(Message{Type: NoEntry, Path: m.Path})
		}
		return c.reply(Message{Type: ReadReply, Path: m.Path, Data: e.value})
	case MultiRead:
		return c.dump(m.Path)
	case List:
		var replies []Message
		for _, p := range d.under(m.Path) {
			replies = append(replies, Message{Type: ListReply, Path: p})
		}
		return c.reply(append(replies, Message{Type: ListReply})...)
	case Write, Remove:
		if c.role == reader {
			return c.reply(Message{Type: Failed, Path: m.Path})
		}
		return c.change(m, local)
	case Watch:
		if len(c.watches) == maxWatches {
			return c.reply(Message{Type: Failed, Path: m.Path})
		}
		c.watches[m.Path] = struct{}{}
		d.conns[c] = struct{}{}
		return c.reply(Message{Type: OK, Path: m.Path})
	case Unwatch:
		if _, ok := c.watches[m.Path]; !ok {
			return c.reply(Message{Type: NoEntry, Path: m.Path})
		}
		delete(c.watches, m.Path)
		return c.reply(Message{Type: OK, Path: m.Path})
	}
	return c.reply(Message{Type: Failed, Path: m.Path})
}

// change writes or removes an entry and answers; mu is held.
func (c *conn) change(m Message, from origin) error {
	if m.Type == Remove {
		switch gone := c.db.remove(m.Path, from); {
		case !gone && from != remote:
			return c.reply(Message{Type: NoEntry, Path: m.Path})
		case gone && from == remote:
			c.db.heard(m.Path)
		}
		// Over the channel there is no word for "nothing was there", and
		// both sides may have removed it at once.
		return c.reply(Message{Type: OK, Path: m.Path})
	}
	if err := c.db.store(m.Path, m.Data, from); err != nil {
		return c.reply(Message{Type: Failed, Path: m.Path})
	}
	if err := c.reply(Message{Type: OK, Path: m.Path}); err != nil {
		return err
	}
	c.db.fire(m.Path)
	if from == remote {
		c.db.heard(m.Path)
	}
	return nil
}

// dump sends the entries with a prefix; a whole database goes backwards,
// which makes the other side's sorting easy.
func (c *conn) dump(prefix string) error {
	var replies []Message
	for _, p := range c.db.under(prefix) {
		replies = append(replies, Message{MultiReadReply, p, c.db.entries[p].value})
	}
	if prefix == "" {
		for i, j := 0, len(replies)-1; i < j; i, j = i+1, j-1 {
			replies[i], replies[j] = replies[j], replies[i]
		}
	}
	return c.reply(append(replies, Message{Type: MultiReadReply})...)
}

// fromQube is dom0's end of the channel: everything that comes is hostile. mu
// is held.
func (c *conn) fromQube(m Message) error {
	switch m.Type {
	case MultiRead:
		if c.db.peer == c || m.Path != "" {
			return errors.New("the qube asks for the database out of turn")
		}
		if err := c.dump(""); err != nil {
			return err
		}
		c.db.peer = c // from now on it is told of changes
		return nil
	case Write, Remove:
		return c.change(m, remote)
	case OK, Failed:
		return nil
	}
	return fmt.Errorf("message of type %d on the channel", m.Type)
}

// fromDom0 is the qube's end of the channel; mu is held.
func (c *conn) fromDom0(m Message) error {
	d := c.db
	switch {
	case m.Type == MultiReadReply && c.seen != nil && m.Path != "":
		c.seen[m.Path] = true
		old, ok := d.entries[m.Path]
		if ok && (old.unsent || old.value == m.Data) {
			return nil // ours is newer, or it is the same
		}
		if err := d.store(m.Path, m.Data, remote); err != nil {
			return fmt.Errorf("store %s: %w", m.Path, err)
		}
		d.fire(m.Path)
		d.heard(m.Path)
		return nil
	case m.Type == MultiReadReply && c.seen != nil:
		return c.inStep()
	case m.Type == Write || m.Type == Remove:
		return c.change(m, remote)
	case m.Type == OK, m.Type == Failed:
		return nil
	}
	return fmt.Errorf("message of type %d on the channel", m.Type)
}

// inStep is the end of dom0's dump: what was removed meanwhile goes away, and
// dom0 is told what it does not know. mu is held.
func (c *conn) inStep() error {
	d := c.db
	var gone []string
	for _, p := range d.paths {
		switch e := d.entries[p]; {
		case c.seen[p] && !e.unsent:
		case e.origin == remote:
			gone = append(gone, p)
		default:
			e.unsent = false
			d.entries[p] = e
			if err := c.reply(Message{Write, p, e.value}); err != nil {
				return err
			}
		}
	}
	for _, p := range gone {
		d.remove(p, remote)
		d.heard(p)
	}
	c.seen = nil
	d.peer = c
	select {
	case <-d.step:
	default:
		close(d.step)
	}
	return nil
}

// watching reports whether the connection wants to hear of a path; mu is held.
func (c *conn) watching(path string) bool {
	for w := range c.watches {
		if w == path || strings.HasSuffix(w, "/") && strings.HasPrefix(path, w) {
			return true
		}
	}
	return false
}

// pace slows a sender down to hostileRate.
type pace struct {
	credit float64
	last   time.Time
}

func (p *pace) wait() {
	now := time.Now()
	if p.last.IsZero() {
		p.credit = hostileBurst
	} else {
		p.credit = min(p.credit+now.Sub(p.last).Seconds()*hostileRate, hostileBurst)
	}
	p.last = now
	if p.credit--; p.credit < 0 {
		time.Sleep(time.Duration(-p.credit * float64(time.Second) / hostileRate))
	}
}
