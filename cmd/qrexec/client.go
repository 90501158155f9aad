package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	admin "cubicle/daemon/admin/client"
	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/client"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/runner"
	"cubicle/daemon/qrexec/service"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

type clientFlags struct {
	Target       string `short:"d" required:"" help:"The qube: name or domain id; or dom0." placeholder:"QUBE"`
	Local        string `short:"l" xor:"mode" help:"Run this command line here and connect it to the one in the qube." placeholder:"COMMAND"`
	JustExec     bool   `short:"e" xor:"mode" help:"Start the command and leave; its data goes nowhere."`
	Connect      string `short:"c" xor:"mode" help:"Connect a call that waits in another qube: its ident, the qube's name and its domain id." placeholder:"IDENT,NAME,ID"`
	StdinSocket  bool   `name:"use-stdin-socket" xor:"mode" help:"The standard input is a socket: use it for both directions."`
	ExitZero     bool   `short:"E" help:"Exit with 0 whatever the command's status is."`
	FilterStdout bool   `short:"t" help:"Replace control and non-ASCII characters in the output."`
	FilterStderr bool   `short:"T" help:"Replace control and non-ASCII characters in the error output."`
	Wait         bool   `short:"W" help:"With -c: wait until the call is over."`
	Timeout      uint   `short:"w" default:"10" help:"Seconds that the qube may take to connect." placeholder:"SEC"`
	Kill         bool   `short:"k" help:"Kill the qube afterwards."`
	Prefix       string `short:"p" help:"Data to send before the standard input." placeholder:"DATA"`
	SocketDir    string `help:"The system's root folder is found two folders above this one." placeholder:"DIR" hidden:""`
	Command      string `arg:"" help:"USER:COMMAND, or USER:QUBESRPC SERVICE SOURCE; USER may be DEFAULT."`
}

// statusNotConnected: the two qubes of -c could not be connected.
const statusNotConnected = 137

func clientMain(args []string) int {
	var f clientFlags
	parse(&f, args, "qrexec-client", "Runs a command or a service in a qube.")
	status, err := runClient(f)
	if err != nil {
		fmt.Fprintln(os.Stderr, "qrexec-client:", err)
	}
	if f.ExitZero {
		return 0
	}
	return status & 0xff
}

func runClient(f clientFlags) (int, error) {
	root, err := paths.FromEnv()
	if f.SocketDir != "" {
		root, err = paths.New(f.SocketDir + "/../..")
	}
	if err != nil {
		return 1, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	isDom0 := f.Target == "dom0" || f.Target == "@adminvm" || f.Target == "0"
	var status int
	switch {
	case f.Connect != "":
		status, err = f.connect(ctx, root, isDom0)
	case isDom0:
		status, err = f.serveHere(ctx, root)
	default:
		status, err = f.call(ctx, root)
	}
	if f.Kill && !isDom0 {
		if _, kerr := admin.New(root).Call(context.WithoutCancel(ctx), f.Target, "admin.vm.Kill", "", nil); kerr != nil {
			err = errors.Join(err, fmt.Errorf("kill %s: %w", f.Target, kerr))
		}
	}
	return status, err
}

// call runs the command in a qube.
func (f clientFlags) call(ctx context.Context, root paths.Root) (int, error) {
	call := client.Call{
		Root:           root,
		Target:         f.Target,
		Command:        f.Command,
		JustExec:       f.JustExec,
		Stdin:          os.Stdin,
		Stdout:         output(os.Stdout, f.FilterStdout),
		Stderr:         output(os.Stderr, f.FilterStderr),
		PrefixData:     []byte(f.Prefix),
		ConnectTimeout: time.Duration(f.Timeout) * time.Second,
	}
	ended := func() int { return 0 }
	switch {
	case f.StdinSocket:
		call.Stdout = output(os.Stdin, f.FilterStdout)
		// One that is no socket says so when it is written to.
		call.StdoutEnd = func() { _ = unix.Shutdown(int(os.Stdin.Fd()), unix.SHUT_WR) }
	case f.Local != "":
		in, out, wait, err := startLocal(f.Local)
		if err != nil {
			return wire.StatusFault, err
		}
		call.Stdin, call.Stdout, ended = in, output(out, f.FilterStdout), wait
		call.StdoutEnd = func() { out.Close() }
		defer in.Close()
		defer out.Close()
	}
	status, err := client.Run(ctx, call)
	if call.StdoutEnd != nil {
		call.StdoutEnd()
	}
	if own := ended(); status == 0 && err == nil {
		status = own
	}
	return status, err
}

// startLocal runs a command line here; in is its output, which goes to the
// qube, and out its input.
func startLocal(line string) (in io.ReadCloser, out io.WriteCloser, wait func() int, err error) {
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Stderr = os.Stderr
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	defer inW.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		inR.Close()
		return nil, nil, nil, err
	}
	defer outR.Close()
	cmd.Stdin, cmd.Stdout = outR, inW
	if err := cmd.Start(); err != nil {
		inR.Close()
		outW.Close()
		return nil, nil, nil, err
	}
	return inR, &untilGone{outW}, func() int {
		if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
			return wire.StatusFault
		}
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return cmd.ProcessState.ExitCode()
	}, nil
}

// untilGone drops what its reader does not want: the command in the qube goes
// on when the one here has ended.
type untilGone struct{ *os.File }

func (u *untilGone) Write(p []byte) (int, error) {
	if _, err := u.File.Write(p); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
		return 0, err
	}
	return len(p), nil
}

// connect lets a call happen that waits in another qube (spec/qrexec.md §15,
// -c).
func (f clientFlags) connect(ctx context.Context, root paths.Root, isDom0 bool) (int, error) {
	w, err := parseWaiting(root, f.Connect)
	if err != nil {
		return 1, err
	}
	if isDom0 {
		data, call, err := client.Serve(ctx, w)
		if err != nil {
			return statusNotConnected, err
		}
		defer call.Close()
		defer data.Close()
		stop := context.AfterFunc(ctx, func() { data.Close() })
		defer stop()
		if err := f.runner(root).Run(ctx, data, control.Handover{Command: f.dom0Command(), Source: w.Source}); err != nil {
			return 1, err
		}
		return 0, nil
	}
	call, err := client.Connect(ctx, w, f.Target, f.Command)
	if err != nil {
		return statusNotConnected, err
	}
	defer call.Close()
	if f.Wait || f.Kill {
		stop := context.AfterFunc(ctx, func() { call.Close() })
		defer stop()
		// Its end, in whatever way it comes, is the call's.
		_, _ = io.Copy(io.Discard, call)
	}
	return 0, nil
}

func parseWaiting(root paths.Root, text string) (client.Waiting, error) {
	words := strings.Split(text, ",")
	if len(words) != 3 {
		return client.Waiting{}, fmt.Errorf("%q is not IDENT,NAME,ID", text)
	}
	id, err := strconv.ParseUint(words[2], 10, 32)
	if err != nil {
		return client.Waiting{}, fmt.Errorf("domain id %q: %w", words[2], err)
	}
	if len(words[0]) >= wire.IdentSize {
		return client.Waiting{}, fmt.Errorf("an ident of %d bytes", len(words[0]))
	}
	return client.Waiting{Root: root, Ident: wire.Ident(words[0]), Source: words[1], Domain: vchan.Domain(id)}, nil
}

func (f clientFlags) runner(root paths.Root) *runner.Runner {
	return runner.New(runner.Options{Root: root, Env: os.Environ(), Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
}

// dom0Command is the command without its USER part, which dom0's own executor
// does not have.
func (f clientFlags) dom0Command() string {
	if _, rest, ok := strings.Cut(f.Command, ":"); ok && strings.HasPrefix(rest, "QUBESRPC ") {
		return rest
	}
	return f.Command
}

// serveHere runs one of dom0's services in our place (spec/qrexec.md §7.6).
func (f clientFlags) serveHere(ctx context.Context, root paths.Root) (int, error) {
	if !strings.HasPrefix(f.Command, wire.DefaultUser+":QUBESRPC ") || f.Local != "" || f.JustExec || f.StdinSocket {
		return 1, errors.New("of dom0 itself only services can be called, as DEFAULT:QUBESRPC SERVICE SOURCE: run the command")
	}
	p, err := f.runner(root).Plan(f.dom0Command())
	switch {
	case err != nil:
		return service.Status(err), err
	case p.Empty():
		return wire.StatusNoService, fmt.Errorf("there is no service %q", p.Name)
	case p.Run != nil:
		return p.Run(ctx, service.Streams{Env: p.Env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}), nil
	case p.Addr != nil:
		return wire.StatusFault, fmt.Errorf("%s is a socket: connect to %s", p.Name, p.Addr)
	}
	return wire.StatusFault, fmt.Errorf("%s: %w", p.Argv[0], syscall.Exec(p.Argv[0], p.Argv, p.Env))
}

func output(w io.Writer, filter bool) io.Writer {
	if filter {
		return wire.NewEscapeFilter(w)
	}
	return w
}
