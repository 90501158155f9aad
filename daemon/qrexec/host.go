package qrexec

import (
	"context"
	"fmt"
	"net"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/vchan"
)

// host is dom0's side of a call with a qube that has a link.
type host interface {
	// early tells that open is called when the call begins, with a nil
	// stream, and else when the qube's is there.
	early() bool
	// open gets dom0's side. It is called without Router.mu.
	open(ctx context.Context, c *call, qube *net.UnixConn) error
	// close is called in place of open for a call that fails before.
	close()
}

// hostCaller is a program of dom0 that calls into a qube: it offers the data
// channel on upstream's socket (spec/qrexec.md §7.1).
type hostCaller struct {
	root string // of the sockets
	leg  *leg
}

func (h *hostCaller) early() bool { return false }
func (h *hostCaller) close()      {}

func (h *hostCaller) open(ctx context.Context, c *call, _ *net.UnixConn) error {
	ctx, cancel := context.WithTimeout(ctx, dataConnect)
	defer cancel()
	t := vchan.Unix{Dir: h.root, Self: h.leg.q.Domain}
	ch, err := t.Dial(ctx, dom0, h.leg.port)
	return c.hostIsThere(callerSide, ch, err)
}

// hostService is a program of dom0 that serves a qube's call itself: it connects
// to the data channel on upstream's socket (spec/qrexec.md §7.3).
type hostService struct {
	root string
	leg  *leg
}

func (h *hostService) early() bool { return true }
func (h *hostService) close()      {}

func (h *hostService) open(ctx context.Context, c *call, _ *net.UnixConn) error {
	t := vchan.Unix{Dir: h.root, Self: h.leg.q.Domain}
	ch, err := t.Listen(ctx, dom0, h.leg.port)
	return c.hostIsThere(serviceSide, ch, err)
}

// hostIsThere attaches what a host has got.
func (c *call) hostIsThere(s side, ch *vchan.Channel, err error) error {
	if err != nil {
		return fmt.Errorf("dom0's end of the call is not there: %w", err)
	}
	conn, ok := ch.Conn.(*net.UnixConn)
	if !ok {
		ch.Close()
		return errNotUnix
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if c.ended {
		conn.Close()
		return nil
	}
	c.streams[s] = conn
	c.relayIfJoined()
	return nil
}

// hostRunner is the process that runs dom0's own services. It gets the qube's
// stream itself; its end of the connection tells that the service is over.
type hostRunner struct {
	conn     *net.UnixConn
	handover control.Handover
}

func (h *hostRunner) early() bool { return false }
func (h *hostRunner) close()      { h.conn.Close() }

func (h *hostRunner) open(ctx context.Context, c *call, qube *net.UnixConn) error {
	defer h.conn.Close()
	// Ours stays open, so that we can end the call.
	if err := control.SendHandover(h.conn, h.handover, qube); err != nil {
		return fmt.Errorf("dom0's services: %w", err)
	}
	c.r.mu.Lock()
	if c.ended {
		c.r.mu.Unlock()
		return nil
	}
	c.markJoined()
	c.r.mu.Unlock()
	stop := context.AfterFunc(c.r.ctx, func() { h.conn.Close() })
	defer stop()
	_, err := h.conn.Read(make([]byte, 1))
	qube.Close()
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if quiet(err) != nil {
		c.end(fmt.Errorf("dom0's services: %w", err))
	}
	c.end(nil)
	c.forget()
	return nil
}
