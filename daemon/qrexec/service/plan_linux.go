package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// Streams are what a built-in service has of its caller.
type Streams struct {
	Env    []string // as a program's
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Func is a service that is a function; it returns the status. Its context
// ends with the call.
type Func func(ctx context.Context, s Streams) int

// Plan is what a call comes to. At most one of Argv, Run and Addr is set; none
// is a service that does not exist.
type Plan struct {
	Name string // for the log
	Argv []string
	Run  Func
	Addr net.Addr

	Env        []string
	Dir        string              // where a program starts
	Credential *syscall.Credential // nil: our own

	Config     Config
	Descriptor string // what a socket service reads first, without its NUL
	Service    bool   // a service, not a command line: its stderr is logged too
}

// Empty tells that there is nothing to run.
func (p *Plan) Empty() bool { return p.Argv == nil && p.Run == nil && p.Addr == nil }

var errNone = errors.New("there is no such service")

// Start runs the plan with its streams connected. The error's Status ends the
// call.
func (p *Plan) Start(ctx context.Context, log *slog.Logger) (*Job, error) {
	switch {
	case p.Run != nil:
		return p.startFunc(ctx), nil
	case p.Addr != nil:
		return p.connect(ctx)
	case p.Argv == nil:
		return nil, Fail(wire.StatusNoService, "%s: %w", p.Name, errNone)
	}
	var ours, theirs [3]*os.File
	closeAll := func(files [3]*os.File) {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}
	for i := range ours {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours)
			closeAll(theirs)
			return nil, err
		}
		if i < 2 {
			widen(w)
		}
		if i == 0 {
			theirs[i], ours[i] = r, w
		} else {
			ours[i], theirs[i] = r, w
		}
	}
	cmd := p.command()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
	err := cmd.Start()
	closeAll(theirs)
	if err != nil {
		closeAll(ours)
		return nil, err
	}
	j := &Job{Stdin: ours[0], Stdout: ours[1], Stderr: ours[2]}
	if p.Service {
		j.Tee = &lineLog{log: log.With("service", p.Name)}
	}
	exited := make(chan int, 1)
	go func() { exited <- exitStatus(cmd.Wait()) }() // reaped also when nobody waits any more
	j.Wait = func(<-chan struct{}) int { return <-exited }
	return j, nil
}

// pipeSize is room for a few data messages, in bytes: program and agent then
// take turns less often.
const pipeSize = 256 << 10

// widen makes a pipe hold pipeSize. A smaller one is only slower.
func widen(pipe *os.File) {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
}

func (p *Plan) command() *exec.Cmd {
	attr := &syscall.SysProcAttr{Setsid: true, Credential: p.Credential}
	return &exec.Cmd{Path: p.Argv[0], Args: p.Argv, Env: p.Env, Dir: p.Dir, SysProcAttr: attr}
}

func exitStatus(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return exit.ExitCode()
	}
	return wire.StatusFault
}

// JustExec starts the plan without its data and returns the status: whether
// it could be started.
func (p *Plan) JustExec(log *slog.Logger) int {
	if p.Argv == nil {
		j, err := p.Start(context.Background(), log)
		if err != nil {
			log.Warn("cannot start the command", "err", err)
			return Status(err)
		}
		j.Stdin.Close()
		go func() {
			_, _ = io.Copy(io.Discard, j.Stdout)
			input := make(chan struct{})
			close(input)
			j.Wait(input)
			j.Stdout.Close()
		}()
		if j.Stderr != nil {
			go func() { _, _ = io.Copy(io.Discard, j.Stderr) }()
		}
		return 0
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		log.Error("no null device", "err", err)
		return wire.StatusFault
	}
	defer null.Close()
	cmd := p.command()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
	if p.Service {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		log.Warn("cannot start the command", "err", err)
		return Status(err)
	}
	go func() { _ = cmd.Wait() }() // only to reap it
	return 0
}

// startFunc runs a function as if it were a program.
func (p *Plan) startFunc(ctx context.Context) *Job {
	ctx, cancel := context.WithCancel(ctx)
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	exited := make(chan int, 1)
	go func() {
		defer cancel()
		status := p.Run(ctx, Streams{Env: p.Env, Stdin: inR, Stdout: outW, Stderr: errW})
		inR.Close()
		outW.Close()
		errW.Close()
		exited <- status
	}()
	return &Job{Stdin: inW, Stdout: outR, Stderr: errR, cancel: cancel, Wait: func(<-chan struct{}) int { return <-exited }}
}

// connectTimeout is how long a socket service may take to accept.
const connectTimeout = 5 * time.Second

// connect opens a socket or TCP service and sends the descriptor.
func (p *Plan) connect(ctx context.Context) (*Job, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := dial(ctx, p.Addr)
	if err != nil {
		return nil, Fail(wire.StatusFault, "service %s: %w", p.Name, err)
	}
	if !p.Config.SkipDescriptor {
		if _, err := conn.Write(append([]byte(p.Descriptor), 0)); err != nil {
			conn.Close()
			return nil, Fail(wire.StatusFault, "service %s: %w", p.Name, err)
		}
	}
	return &Job{
		Stdin: writeHalf{conn}, Stdout: conn,
		ExitOnInputEOF: p.Config.ExitOnClientEOF, ExitOnOutputEOF: p.Config.ExitOnServiceEOF,
		Wait: func(input <-chan struct{}) int {
			<-input
			return 0
		},
	}, nil
}

func dial(ctx context.Context, addr net.Addr) (net.Conn, error) {
	if addr.Network() == "unix" {
		return vchan.DialPath(ctx, addr.String())
	}
	var d net.Dialer
	return d.DialContext(ctx, addr.Network(), addr.String())
}

// writeHalf closes only the direction to the service.
type writeHalf struct{ net.Conn }

func (w writeHalf) Close() error {
	h, ok := w.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("%T has no half-close", w.Conn)
	}
	return h.CloseWrite()
}

// lineLog logs what is written to it, line by line, long lines in parts.
type lineLog struct {
	log  *slog.Logger
	line []byte
}

const maxLogLine = 1024

func (l *lineLog) Write(b []byte) (int, error) {
	for _, c := range b {
		if c != '\n' {
			l.line = append(l.line, c)
		}
		if c == '\n' || len(l.line) == maxLogLine {
			l.log.Info("stderr", "text", string(l.line))
			l.line = l.line[:0]
		}
	}
	return len(b), nil
}
