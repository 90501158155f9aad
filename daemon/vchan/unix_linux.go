package vchan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

var _ Transport = (*Unix)(nil)

// Unix is upstream's socket transport (spec/vchan.md §3): one UNIX stream
// socket a channel, named after the pair of domains and the port. Bytes
// travel as they are. Who may connect is decided by the permissions of Dir.
type Unix struct {
	Dir  string // existing folder of the sockets
	Self Domain // our own domain
}

// SocketName returns the file name of a channel's socket.
func SocketName(server, client Domain, port Port) string {
	return fmt.Sprintf("vchan.%d.%d.%d.sock", server, client, port)
}

// Listen offers one channel: it unlinks an old socket, binds, accepts one
// client and removes the socket again.
func (u *Unix) Listen(ctx context.Context, peer Domain, port Port) (*Channel, error) {
	conn, err := u.listen(ctx, SocketName(u.Self, peer, port))
	if err != nil {
		return nil, &Error{Op: opListen, Domain: peer, Port: port, Err: err}
	}
	return &Channel{Conn: conn}, nil
}

func (u *Unix) listen(ctx context.Context, name string) (net.Conn, error) {
	dir, err := OpenDir(u.Dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// The socket gets its name when it is ready: a client that waits for it
	// must not meet one that it may not open yet.
	fresh := fmt.Sprintf(".%s.%d", name, os.Getpid())
	if err := unix.Unlinkat(dir.fd(), fresh, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove old socket %s: %w", fresh, err)
	}
	l, err := net.ListenUnix("unix", dir.addr(fresh))
	if err != nil {
		return nil, err
	}
	// The path is one through /proc/self/fd: we remove the file ourselves.
	l.SetUnlinkOnClose(false)
	defer l.Close()
	// Who may connect is the folder's business, as upstream has it.
	err = unix.Fchmodat(dir.fd(), fresh, 0o666, 0)
	if err == nil {
		err = unix.Renameat(dir.fd(), fresh, dir.fd(), name)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket %s: %w", name, err), unix.Unlinkat(dir.fd(), fresh, 0))
	}
	defer unix.Unlinkat(dir.fd(), name, 0)
	stop := context.AfterFunc(ctx, func() { l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := l.Accept()
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return conn, err
}

// Dial connects to the channel that peer offers, waiting until it does.
func (u *Unix) Dial(ctx context.Context, peer Domain, port Port) (*Channel, error) {
	conn, err := DialPath(ctx, filepath.Join(u.Dir, SocketName(peer, u.Self, port)))
	if err != nil {
		return nil, &Error{Op: opDial, Domain: peer, Port: port, Err: err}
	}
	return &Channel{Conn: conn}, nil
}

// DialPath connects to the UNIX stream socket at path, which may be longer
// than a socket address, waiting until somebody listens there.
func DialPath(ctx context.Context, path string) (*net.UnixConn, error) {
	for pause := redialMin; ; pause = min(2*pause, redialMax) {
		conn, err := DialOnce(path)
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: nobody listens: %w", path, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// DialOnce is DialPath for who does not want to wait: when nobody listens, it
// fails at once.
func DialOnce(path string) (*net.UnixConn, error) {
	dir, err := OpenDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return net.DialUnix("unix", nil, dir.addr(filepath.Base(path)))
}

// ListenPath listens on the UNIX stream socket at path, which may be longer
// than a socket address (107 bytes). An old socket file is replaced. Closing
// the listener leaves the file.
func ListenPath(path string) (*net.UnixListener, error) {
	dir, err := OpenDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name := filepath.Base(path)
	if err := unix.Unlinkat(dir.fd(), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove old socket %s: %w", path, err)
	}
	l, err := net.ListenUnix("unix", dir.addr(name))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

// Dir is an open folder through which sockets with long paths are reached.
type Dir struct{ f *os.File }

// OpenDir opens the folder at path.
func OpenDir(path string) (*Dir, error) {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Dir{f}, nil
}

// Close closes the folder.
func (d *Dir) Close() error { return d.f.Close() }

func (d *Dir) fd() int { return int(d.f.Fd()) }

// addr names a socket in the folder in fewer than 108 bytes.
func (d *Dir) addr(name string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.f.Fd(), name)}
}

// Peer is the process at the other end of a UNIX socket, as it was when it
// connected (SO_PEERCRED, unix(7)).
func Peer(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("credentials of the peer: %w", err)
	}
	var cred *unix.Ucred
	var fault error
	err = raw.Control(func(fd uintptr) { cred, fault = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err == nil {
		err = fault
	}
	if err != nil {
		return nil, fmt.Errorf("credentials of the peer: %w", err)
	}
	return cred, nil
}
