package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server answers on the policy agent's socket.
type Server struct {
	// Ask puts the question and returns the chosen target, or "" for no. Its
	// context ends when the caller has given up.
	Ask func(ctx context.Context, r Request) string
	// Tell shows what became of a call. It returns at once.
	Tell func(News)
	// Users may speak to the server, besides root.
	Users []uint32
	Log   *slog.Logger
}

// Bounds of the connections.
const (
	maxConns    = 256
	readTime    = 10 * time.Second // for all that the caller says
	answerTime  = 5 * time.Second
	answerAllow = "allow:"
	answerDeny  = "deny"
)

// Listen makes the socket at path, for the calling user and root. Where a
// link stands there, the socket is made where it points to. One that a killed
// agent left is replaced; where an agent answers, it is an error.
func Listen(path string) (*net.UnixListener, error) {
	if to, err := os.Readlink(path); err == nil {
		path = to
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: a policy agent runs already", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Serve answers until ctx ends, which is no error, or the socket fails. It
// closes l and waits for the answers under way.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	places := make(chan struct{}, maxConns)
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			l.Close()
			return fmt.Errorf("policy agent's socket: %w", err)
		}
		select {
		case places <- struct{}{}:
		default:
			s.Log.Warn("a question is denied: too many are open", "open", maxConns)
			c.Close()
			continue
		}
		open.Go(func() {
			defer func() { <-places }()
			defer c.Close()
			if err := s.serve(ctx, c); err != nil {
				s.Log.Warn("a question or news went unanswered", "error", err)
			}
		})
	}
}

// serve answers one caller. An error leaves it without an answer, which is a
// denial.
func (s *Server) serve(ctx context.Context, c *net.UnixConn) error {
	if err := s.admit(c); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(readTime)); err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(c, maxHeader+maxJSON+1))
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	service, body, err := splitHeader(raw)
	if err != nil {
		return err
	}
	if service == "policy.Notify" {
		news, err := ParseNews(body)
		if err != nil {
			return err
		}
		s.Tell(news)
		return nil
	}
	request, err := ParseRequest(body)
	if err != nil {
		// A denial that says so: the caller need not wonder about us.
		return errors.Join(err, answer(c, answerDeny))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leave := followHangup(c, cancel)
	target := s.Ask(ctx, request)
	if gone := leave(); gone {
		return nil
	}
	if target == "" || !slices.Contains(request.Targets, target) {
		return answer(c, answerDeny)
	}
	return answer(c, answerAllow+target)
}

func answer(c *net.UnixConn, text string) error {
	if err := c.SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return fmt.Errorf("answer %s: %w", text, err)
	}
	return nil
}

// admit refuses whoever is neither root nor the desktop's user.
func (s *Server) admit(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var fault error
	if err := raw.Control(func(fd uintptr) {
		peer, fault = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if fault != nil {
		return fmt.Errorf("who is the caller: %w", fault)
	}
	if !s.admits(peer.Uid) {
		return fmt.Errorf("user %d (process %d) may not ask", peer.Uid, peer.Pid)
	}
	return nil
}

func (s *Server) admits(uid uint32) bool { return uid == 0 || slices.Contains(s.Users, uid) }

// splitHeader takes the service's header off: "SERVICE SOURCE", in dom0 with
// "TYPE TARGET" behind it, and a NUL (spec/qrexec.md §13).
func splitHeader(raw []byte) (service string, body []byte, err error) {
	end := bytes.IndexByte(raw[:min(len(raw), maxHeader)], 0)
	if end < 0 {
		return "", nil, errors.New("there is no header")
	}
	header := string(raw[:end])
	fields := strings.Split(header, " ")
	if len(fields) != 2 && len(fields) != 4 {
		return "", nil, fmt.Errorf("header %.80q", header)
	}
	service = strings.TrimSuffix(fields[0], "+")
	switch {
	case service != "policy.Ask" && service != "policy.Notify":
		return "", nil, fmt.Errorf("there is no service %.80q here", fields[0])
	case fields[1] != "dom0":
		return "", nil, fmt.Errorf("%.80q asks, but only dom0 may", fields[1])
	}
	return service, raw[end+1:], nil
}

// followHangup calls hungUp when the caller has closed its whole connection;
// half of it is closed already. leave ends that and tells whether it did.
func followHangup(c *net.UnixConn, hungUp func()) (leave func() bool) {
	done := make(chan bool, 1)
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		hungUp()
		return func() bool { return true }
	}
	go func() {
		gone := false
		raw, err := c.SyscallConn()
		if err == nil {
			// Read waits for events after each false. A hang-up is one.
			err = raw.Read(func(fd uintptr) bool {
				poll := []unix.PollFd{{Fd: int32(fd)}}
				n, err := unix.Poll(poll, 0)
				gone = err == nil && n == 1
				return gone
			})
		}
		gone = gone || err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
		if gone {
			hungUp()
		}
		done <- gone
	}()
	return func() bool {
		// The past: what waits ends.
		if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
			return true
		}
		return <-done
	}
}
