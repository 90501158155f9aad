package qrexec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/agents/qrexec/vmclient"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// TriggerSocket is where programs of the qube ask for services elsewhere
// (spec/qrexec.md §12).
const TriggerSocket = "/run/qubes/qrexec-agent"

// triggers are the waiting calls of the qube's own programs: each is a
// connection, named to dom0 by an ident.
type triggers struct {
	agent *agent
	l     *net.UnixListener

	mu      sync.Mutex // guards what follows
	control *controlChannel
	next    uint64
	waiting map[wire.Ident]waiting
	open    int
}

// waiting is a program that waits for its call's verdict.
type waiting struct {
	conn    *net.UnixConn
	ctx     context.Context // ends when the program has gone
	channel bool            // it wants the data channel itself, not only its place
}

// listenTriggers offers the socket. Without one (Trigger "-") it is never
// asked for anything.
func (a *agent) listenTriggers(ctx context.Context) (*triggers, error) {
	t := &triggers{agent: a, waiting: make(map[wire.Ident]waiting)}
	if a.Trigger == "-" {
		return t, nil
	}
	if err := os.MkdirAll(filepath.Dir(a.Trigger), 0o755); err != nil {
		return nil, fmt.Errorf("trigger socket: %w", err)
	}
	l, err := vchan.ListenPath(a.Trigger)
	if err != nil {
		return nil, fmt.Errorf("trigger socket: %w", err)
	}
	// Every user of the qube may ask; policy in dom0 decides.
	if err := os.Chmod(a.Trigger, 0o777); err != nil {
		l.Close()
		return nil, fmt.Errorf("trigger socket: %w", err)
	}
	t.l = l
	a.calls.Go(func() { t.accept(ctx) })
	return t, nil
}

// Close ends the socket and every waiting call.
func (t *triggers) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop()
	if t.l == nil {
		return nil
	}
	err := t.l.Close()
	if rerr := os.Remove(t.agent.Trigger); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// drop ends all waiting calls; mu is held.
func (t *triggers) drop() {
	for id, w := range t.waiting {
		delete(t.waiting, id)
		w.conn.Close()
	}
}

func (t *triggers) attach(c *controlChannel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.control = c
}

// detach forgets the control channel, and with it what was asked on it.
func (t *triggers) detach(c *controlChannel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.control == c {
		t.control = nil
		t.drop()
	}
}

func (t *triggers) accept(ctx context.Context) {
	for {
		conn, err := t.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil { // out of descriptors, most likely
			t.agent.Log.Warn("trigger socket", "err", err)
			time.Sleep(lastPause)
			continue
		}
		if !t.enter() {
			conn.Close()
			continue
		}
		t.agent.calls.Go(func() {
			defer t.leave()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			if err := t.ask(ctx, conn); err != nil {
				t.agent.Log.Info("call out of the qube", "err", err)
			}
		})
	}
}

func (t *triggers) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == maxCalls {
		return false
	}
	t.open++
	return true
}

func (t *triggers) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
}

// ask forwards one call and holds its connection until the program closes it
// or the call is refused.
func (t *triggers) ask(ctx context.Context, conn *net.UnixConn) error {
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	typ, body, err := wire.ReadMessage(conn, wire.TriggerClient, wire.OwnVersion)
	if err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	tr, err := wire.ParseTrigger(typ, body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := waiting{conn, ctx, tr.Ident == vmclient.IdentChannel}
	t.mu.Lock()
	control := t.control
	t.next++
	tr.Ident = wire.Ident("SOCKET" + strconv.FormatUint(t.next, 10))
	if control != nil {
		t.waiting[tr.Ident] = w
	}
	t.mu.Unlock()
	if control == nil {
		return errors.New("dom0 is not connected")
	}
	defer t.forget(tr.Ident)
	if control.version < 4 {
		return fmt.Errorf("dom0 speaks version %d only", control.version)
	}
	if err := control.send(tr.Message()); err != nil {
		return err
	}
	var b [1]byte // the program says nothing more; its end ends the call
	_, _ = conn.Read(b[:])
	if _, waits := t.take(tr.Ident); waits { // it leaves before dom0 has decided
		if gaveUp, ok := wire.GaveUpMessage(tr.Ident); ok {
			return control.send(gaveUp)
		}
	}
	return nil
}

// forget drops a call that was not answered.
func (t *triggers) forget(id wire.Ident) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, id)
}

// take returns the waiting call, once.
func (t *triggers) take(id wire.Ident) (waiting, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w, ok := t.waiting[id]
	delete(t.waiting, id)
	return w, ok
}

// refuse closes the waiting program's connection: end of file without an
// answer means refused.
func (t *triggers) refuse(id wire.Ident) {
	if w, ok := t.take(id); ok {
		w.conn.Close()
	}
}

// connect tells the waiting program where its data channel is, or opens it
// for it. The program keeps the connection until the call is over.
func (t *triggers) connect(c *controlChannel, to wire.Connect) {
	w, ok := t.take(to.Ident)
	if !ok { // it gave up
		go c.terminated(to.Domain, to.Port)
		return
	}
	t.agent.calls.Go(func() {
		defer c.terminated(to.Domain, to.Port)
		if err := t.answer(w, to); err != nil {
			if w.ctx.Err() == nil {
				t.agent.Log.Warn("call out of the qube", "domain", to.Domain, "port", to.Port, "err", err)
			}
			w.conn.Close()
			return
		}
		<-w.ctx.Done() // ask sees the end
	})
}

// answer sends a program the place of its data channel, with the channel
// itself where it wants that: programs of plain users cannot reach the link.
func (t *triggers) answer(w waiting, to wire.Connect) error {
	b := binary.LittleEndian.AppendUint32(nil, uint32(to.Domain))
	b = binary.LittleEndian.AppendUint32(b, uint32(to.Port))
	if !w.channel {
		_, err := w.conn.Write(b)
		return err
	}
	ctx, cancel := context.WithTimeout(w.ctx, dialTimeout)
	defer cancel()
	ch, err := t.agent.transport.Listen(ctx, to.Domain, to.Port)
	if err != nil {
		return err
	}
	defer ch.Close()
	conn, ok := ch.Conn.(interface{ File() (*os.File, error) })
	if !ok {
		return fmt.Errorf("channel over %T has no descriptor", ch.Conn)
	}
	file, err := conn.File()
	if err != nil {
		return err
	}
	defer file.Close()
	_, _, err = w.conn.WriteMsgUnix(b, unix.UnixRights(int(file.Fd())), nil)
	return err
}
