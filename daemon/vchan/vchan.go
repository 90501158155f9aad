// Package vchan carries reliable, ordered, full-duplex byte streams between
// two numbered domains (spec/vchan.md). A channel is named by the domain that
// offers it, the domain that may connect, and a port.
//
// Most callers take a Transport as a parameter and never ask which one it is:
// Link asks qrexecd for channel ends over one trusted connection (agents in
// sandboxes, and dom0's own programs), Unix uses upstream's socket files
// (foreign peers, tests, agents started by hand).
//
// There are no message borders; frame above this package. A peer's death
// surfaces as io.EOF after the bytes that it had sent.
package vchan

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// Domain is the number of a domain: 0 is dom0; Xen's own ids under Xen, from
// FirstDomain up for all other engines, fixed per run.
type Domain uint32

// FirstDomain is the lowest domain id that Cubicle gives out itself.
const FirstDomain Domain = 0x8000

// Port is a channel's number within a (server, client) pair of domains.
type Port uint32

// Ports by convention (spec/vchan.md §2).
const (
	PortQubesDB   Port = 111
	PortQrexec    Port = 512 // control channel; the qube's agent is the server
	PortDataFirst Port = 513 // first and last data port of qrexec
	PortDataLast  Port = 768
	PortGUI       Port = 6000 // the qube's agent is the server
)

// Transport opens channels on behalf of one domain.
type Transport interface {
	// Listen offers one channel to exactly the domain peer and waits until
	// that peer connects. Like upstream's server objects it serves one peer
	// in its life: call it again for the next. The context ends the wait.
	Listen(ctx context.Context, peer Domain, port Port) (*Channel, error)

	// Dial connects to the channel that peer offers to us, waiting until it
	// does. The context ends the wait.
	Dial(ctx context.Context, peer Domain, port Port) (*Channel, error)
}

// Channel is one end of an open channel. Reads, writes and deadlines are
// those of net.Conn.
type Channel struct {
	net.Conn

	// Region is the shared memory that dom0 attached to the channel, or nil:
	// the pixel region on PortGUI (sealed memfd of RegionSize bytes). The
	// receiver owns the file.
	Region *os.File
}

// CloseWrite ends our direction of the stream; reading goes on.
func (c *Channel) CloseWrite() error {
	h, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return &Error{Op: opCloseWrite, Err: fmt.Errorf("%T has no half-close", c.Conn)}
	}
	return h.CloseWrite()
}

// Close closes the stream and the region's file.
func (c *Channel) Close() error {
	if c.Region != nil {
		c.Region.Close()
	}
	return c.Conn.Close()
}

// RegionSize is the size in bytes of a pixel region. The memory is sparse:
// only pages that were drawn to exist, and they count against the qube.
const RegionSize = 1 << 30

// FromEnv returns the transport that an agent started by hand shall use:
// upstream's sockets when VCHAN_DOMAIN or VCHAN_SOCKET_DIR is set, and false
// otherwise.
func FromEnv() (*Unix, bool, error) {
	dir, hasDir := os.LookupEnv("VCHAN_SOCKET_DIR")
	dom, hasDom := os.LookupEnv("VCHAN_DOMAIN")
	if !hasDir && !hasDom {
		return nil, false, nil
	}
	u := &Unix{Dir: "/var/run/vchan"}
	if dir != "" {
		u.Dir = dir
	}
	if dom != "" {
		n, err := strconv.ParseUint(dom, 10, 32)
		if err != nil {
			return nil, true, fmt.Errorf("VCHAN_DOMAIN=%q is not a domain number", dom)
		}
		u.Self = Domain(n)
	}
	return u, true, nil
}

const (
	opListen     = "listen"
	opDial       = "dial"
	opHello      = "hello"
	opCloseWrite = "close-write"
)

// Error tells which operation on which channel failed, and why.
type Error struct {
	Op     string // "listen", "dial", "hello" or "close-write"
	Domain Domain // the peer
	Port   Port
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("vchan %s domain %d port %d: %v", e.Op, e.Domain, e.Port, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// The pause between two attempts to reach a peer that is not there yet grows
// from the first to the second: most peers are about to listen, and waiting
// for the others need not burn a core as upstream's 100 µs do.
const (
	redialMin = 100 * time.Microsecond
	redialMax = 5 * time.Millisecond
)
