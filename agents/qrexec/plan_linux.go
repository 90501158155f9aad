package qrexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"cubicle/agents/session"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// plan is what a command comes to: exactly one of argv, run and addr is set.
type plan struct {
	name string // for the log
	user session.User
	env  []string
	dir  string

	argv []string                                                              // a program
	run  func(ctx context.Context, env []string, stdout, stderr io.Writer) int // a built-in
	addr net.Addr                                                              // a socket service

	config     rpcConfig
	descriptor string // what a socket service reads first, without the NUL
	service    bool
}

// plan reads a command and finds what it runs, waiting for the session where
// the service wants that; gone ends the wait.
func (a *agent) plan(ctx context.Context, log *slog.Logger, command string, gone func() bool) (*plan, error) {
	c, err := wire.ParseCommand(command)
	if err != nil {
		return nil, err
	}
	if c.RPC == nil {
		p := &plan{name: "command"}
		if err := a.asUser(p, c.User, c.NoGUI); err != nil {
			return nil, err
		}
		p.argv = []string{p.user.Shell, "-c", c.Line}
		return p, nil
	}
	return a.planService(ctx, log, c, gone)
}

func (a *agent) planService(ctx context.Context, log *slog.Logger, c wire.Command, gone func() bool) (*plan, error) {
	r := c.RPC
	log.Info("service", "service", r.FullName(), "source", r.Source, "user", c.User)
	config, err := loadConfig(a.ConfigPath, r, log)
	if err != nil {
		return nil, err
	}
	found, err := findService(a.ServicePath, r)
	if err != nil {
		return nil, err
	}
	b, isBuiltin := builtins[r.Service]
	isBuiltin = isBuiltin && found.kind == foundNothing
	user := c.User
	switch {
	case config.forceUser != "":
		user = config.forceUser
	case isBuiltin && b.user != "":
		user = b.user
	}
	if !c.NoGUI && (config.waitForSession || isBuiltin && b.wait(r)) {
		if err := a.waitForSession(ctx, gone); err != nil {
			return nil, err
		}
	}
	p := &plan{name: r.FullName() + "-" + r.Source, service: true, config: config, descriptor: r.Descriptor()}
	if err := a.asUser(p, user, c.NoGUI); err != nil {
		return nil, err
	}
	p.env = append(p.env, serviceEnv(r)...)
	switch {
	case isBuiltin:
		err = b.plan(a, p, r)
	case found.kind == foundNothing:
		err = fail(wire.StatusNoService, "there is no service %q", r.Service)
	case found.kind == foundFile:
		p.argv = []string{found.path}
		if r.Argument != "" {
			p.argv = append(p.argv, r.Argument)
		}
	default:
		p.addr = found.addr
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// asUser puts user and environment into p.
func (a *agent) asUser(p *plan, name string, noGUI bool) error {
	u, err := session.LookupUser(name)
	if err != nil {
		return fail(wire.StatusFault, "user %q: %w", name, err)
	}
	if os.Geteuid() != 0 && int(u.UID) != os.Geteuid() {
		return fail(wire.StatusFault, "the agent does not run as root and cannot become %q", name)
	}
	p.user, p.dir = u, u.Home
	if fi, err := os.Stat(p.dir); err != nil || !fi.IsDir() {
		p.dir = "/"
	}
	p.env = a.userEnv(u, noGUI)
	return nil
}

// userEnv is the environment of u's programs: that of the session for its
// user, and of the display alone for others.
func (a *agent) userEnv(u session.User, noGUI bool) []string {
	env := []string{"HOME=" + u.Home, "LOGNAME=" + u.Name, "PATH=" + session.Path, "SHELL=" + u.Shell, "USER=" + u.Name}
	if lang := os.Getenv("LANG"); lang != "" {
		env = append(env, "LANG="+lang)
	}
	if path := os.Getenv("QREXEC_SERVICE_PATH"); path != "" {
		env = append(env, "QREXEC_SERVICE_PATH="+path)
	}
	if noGUI {
		return env
	}
	vars, err := session.ReadEnv(a.SessionEnv)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			a.Log.Warn("session environment", "err", err)
		}
		return env
	}
	own := getenv(vars, "USER") == u.Name
	for _, kv := range vars {
		key, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(key, "QREXEC") {
			continue
		}
		if own || key == "DISPLAY" || key == "XAUTHORITY" || key == "LANG" {
			env = setenv(env, kv)
		}
	}
	return env
}

func getenv(env []string, key string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}

func setenv(env []string, kv string) []string {
	key, _, _ := strings.Cut(kv, "=")
	for i, old := range env {
		if strings.HasPrefix(old, key+"=") {
			env[i] = kv
			return env
		}
	}
	return append(env, kv)
}

// serviceEnv is what a service learns of its call (spec/qrexec.md §13).
// QREXEC_AGENT_PID is not set: this agent is one process for all calls, and
// a signal to it could not name one of them.
func serviceEnv(r *wire.RPC) []string {
	env := []string{
		"QREXEC_REMOTE_DOMAIN=" + r.Source,
		"QREXEC_SERVICE_FULL_NAME=" + r.FullName(),
		"QREXEC_REQUESTED_TARGET_TYPE=" + r.TargetType,
	}
	if r.HasArgument {
		env = append(env, "QREXEC_SERVICE_ARGUMENT="+r.Argument)
	}
	switch r.TargetType {
	case "name":
		env = append(env, "QREXEC_REQUESTED_TARGET="+r.Target)
	case "keyword":
		env = append(env, "QREXEC_REQUESTED_TARGET_KEYWORD="+r.Target)
	}
	return env
}

// start runs the plan with its streams connected.
func (p *plan) start(ctx context.Context, log *slog.Logger) (*job, error) {
	switch {
	case p.run != nil:
		return p.startBuiltin(ctx), nil
	case p.addr != nil:
		return p.connect(ctx)
	}
	var ours, theirs [3]*os.File
	closeThem := func(files [3]*os.File) {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}
	for i := range ours {
		r, w, err := os.Pipe()
		if err != nil {
			closeThem(ours)
			closeThem(theirs)
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
	closeThem(theirs)
	if err != nil {
		closeThem(ours)
		return nil, err
	}
	j := &job{stdin: ours[0], stdout: ours[1], stderr: ours[2]}
	if p.service {
		j.tee = &lineLog{log: log.With("service", p.name)}
	}
	exited := make(chan int, 1)
	go func() { exited <- exitStatus(cmd.Wait()) }() // reaped also when nobody waits any more
	j.wait = func(<-chan struct{}) int { return <-exited }
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

func (p *plan) command() *exec.Cmd {
	attr := &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 {
		attr.Credential = p.user.Credential()
	}
	return &exec.Cmd{Path: p.argv[0], Args: p.argv, Env: p.env, Dir: p.dir, SysProcAttr: attr}
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

// justExec starts the plan without its data and returns the status: that of
// a built-in, else whether the program could be started.
func (a *agent) justExec(log *slog.Logger, p *plan) int {
	if p.argv == nil {
		j, err := p.start(context.Background(), log)
		if err != nil {
			log.Warn("cannot start the command", "err", err)
			return status(err)
		}
		j.stdin.Close()
		go func() {
			_, _ = io.Copy(io.Discard, j.stdout)
			input := make(chan struct{})
			close(input)
			j.wait(input)
			j.stdout.Close()
		}()
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
	if p.service {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		log.Warn("cannot start the command", "err", err)
		return status(err)
	}
	go func() { _ = cmd.Wait() }() // only to reap it
	return 0
}

// startBuiltin runs a function as if it were a program.
func (p *plan) startBuiltin(ctx context.Context) *job {
	ctx, cancel := context.WithCancel(ctx)
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	exited := make(chan int, 1)
	go func() {
		defer cancel()
		status := p.run(ctx, p.env, outW, errW)
		outW.Close()
		errW.Close()
		exited <- status
	}()
	return &job{stdin: discard{cancel}, stdout: outR, stderr: errR, wait: func(<-chan struct{}) int { return <-exited }}
}

// discard is the input of a built-in that reads none.
type discard struct{ cancel context.CancelFunc }

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Close() error                { return nil }

// connect opens a socket or TCP service and sends the descriptor.
func (p *plan) connect(ctx context.Context) (*job, error) {
	conn, err := dialAddr(ctx, p.addr)
	if err != nil {
		return nil, fail(wire.StatusFault, "service %s: %w", p.name, err)
	}
	if !p.config.skipDescriptor {
		if _, err := conn.Write(append([]byte(p.descriptor), 0)); err != nil {
			conn.Close()
			return nil, fail(wire.StatusFault, "service %s: %w", p.name, err)
		}
	}
	return &job{
		stdin: writeHalf{conn}, stdout: conn,
		exitOnInputEOF: p.config.exitOnClientEOF, exitOnOutputEOF: p.config.exitOnServiceEOF,
		wait: func(input <-chan struct{}) int {
			<-input
			return 0
		},
	}, nil
}

func dialAddr(ctx context.Context, addr net.Addr) (net.Conn, error) {
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
