package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"cubicle/agents/qrexec/vmclient"
	"cubicle/daemon/qrexec/wire"
)

type runCmd struct {
	Dispvm   string   `name:"dispvm" short:"d" placeholder:"BASE" help:"In a new disposable qube (of the given base) instead of a qube that is named."`
	Gui      bool     `default:"true" negatable:"" help:"Wait until the other qube can show windows (--no-gui: do not)."`
	Service  bool     `short:"s" help:"COMMAND is the name of a service."`
	Localcmd string   `short:"l" placeholder:"COMMAND" help:"A command here that talks to the one there."`
	Words    []string `arg:"" passthrough:"partial" name:"qube-and-command" help:"The qube (not with --dispvm), the command and its arguments."`
}

func (c *runCmd) run(ctx context.Context, w Where) error {
	target, words := c.Dispvm, c.Words
	switch {
	case target == "" && len(words) > 0:
		target, words = words[0], words[1:]
	case target != "" && target != anyDisposable:
		target = anyDisposable + ":" + strings.TrimPrefix(target, anyDisposable+":")
	}
	if len(words) == 0 {
		return errors.New("no command is given")
	}
	call := vmclient.Call{
		Trigger: w.Trigger, Transport: w.Transport, Target: target,
		Stdin: w.Stdin, Stdout: w.Stdout, Stderr: w.Stderr,
		FilterStdout: isTerminal(w.Stdout), FilterStderr: isTerminal(w.Stderr),
	}
	if c.Service {
		call.Service = strings.Join(words, "+")
	} else {
		call.Service = "qubes.VMShell"
		if c.Gui {
			call.Service += "+WaitForSession"
		}
		call.Prefix = shellLine(strings.Join(words, " "))
	}
	if c.Localcmd != "" {
		call.Program = []string{"/bin/sh", "-c", c.Localcmd}
	}
	status, err := vmclient.Run(ctx, call)
	if err != nil {
		if errors.Is(err, vmclient.ErrRefused) {
			return err
		}
		return &statusError{status, err}
	}
	if status != 0 {
		return &statusError{status: status}
	}
	return nil
}

// shellLine has the other qube's shell become the command, which then has the
// rest of the input for itself (spec/services.md §4).
func shellLine(command string) []byte {
	return []byte("exec bash -c '" + strings.ReplaceAll(command, "'", `'\''`) + "' || exit 127\n")
}

type connectCmd struct {
	Ports string `arg:"" name:"local:qube:port" help:"Port here (empty: the same), qube (empty: as dom0's policy says) and port there."`
}

// ports reads LOCAL:QUBE:PORT.
func (c *connectCmd) ports() (local uint16, target string, remote uint16, err error) {
	f := strings.Split(c.Ports, ":")
	if len(f) != 3 {
		return 0, "", 0, fmt.Errorf("%q is not LOCAL:QUBE:PORT", c.Ports)
	}
	if f[0] == "" {
		f[0] = f[2]
	}
	var n [2]uint64
	for i, s := range []string{f[0], f[2]} {
		if n[i], err = strconv.ParseUint(s, 10, 16); err != nil || n[i] == 0 {
			return 0, "", 0, fmt.Errorf("%q is no port", s)
		}
	}
	if f[1] == "" {
		f[1] = anyDefault
	}
	return uint16(n[0]), f[1], uint16(n[1]), nil
}

// maxConnections bounds how many connections are open at once.
const maxConnections = 200

func (c *connectCmd) run(ctx context.Context, w Where) error {
	local, target, remote, err := c.ports()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(local))))
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Fprintf(w.Stderr, "Port %d here is port %d of %s\n", local, remote, target)
	return w.forward(ctx, l, target, "qubes.ConnectTCP+"+strconv.Itoa(int(remote)))
}

// forward makes a call of each connection to l, until ctx ends.
func (w Where) forward(ctx context.Context, l net.Listener, target, service string) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	slots := make(chan struct{}, maxConnections)
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			err := w.exchange(ctx, target, service, func(_ context.Context, out io.WriteCloser, in io.Reader) error {
				return relay(conn.(*net.TCPConn), out, in)
			})
			if err != nil && ctx.Err() == nil {
				fmt.Fprintf(w.Stderr, "%s of %s: %v\n", service, target, describe(err))
			}
		})
	}
}

func describe(err error) error {
	if errors.Is(err, vmclient.ErrRefused) {
		return fmt.Errorf("request refused (status %d)", wire.StatusRefused)
	}
	return err
}

// relay moves the data of a connection both ways; an end of one direction is
// one of the other side's as well.
func relay(conn *net.TCPConn, out io.WriteCloser, in io.Reader) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := io.Copy(conn, in); err == nil {
			_ = conn.CloseWrite() // fails when it has closed both already
			return
		}
		conn.Close() // ends the other direction
	}()
	_, err := io.Copy(out, conn)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	<-done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
