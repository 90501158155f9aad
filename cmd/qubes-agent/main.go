// Command qubes-agent is everything that runs inside a qube. Which of its
// programs it is, the name it was called by or its first argument tells.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"cubicle/agents/filecopy"
	"cubicle/agents/gui"
	pid1 "cubicle/agents/init"
	"cubicle/agents/link"
	"cubicle/agents/open"
	"cubicle/agents/qrexec"
	"cubicle/agents/qrexec/vmclient"
	"cubicle/agents/qubesdb"
	"cubicle/agents/session"
	"cubicle/agents/tools"
	qdb "cubicle/daemon/qubesdb"
	"cubicle/daemon/qubesdb/tool"
	"cubicle/daemon/vchan"
)

type flags struct {
	Debug bool `help:"Log details." env:"CUBICLE_DEBUG"`
}

// command is one of the binary's programs.
type command struct {
	name, help string
	of         any
	hidden     bool
}

func commands() []command {
	return []command{
		{"init", "Be the first process of a sandbox qube.", &initCmd{}, false},
		{"qrexec", "Run commands and services that dom0 asks for.", &qrexecCmd{}, false},
		{"unpack", "Receive files of another qube on the standard input.", &unpackCmd{}, true},
		{"open-file", "Open a file of another qube, which is on the standard input.", &openFileCmd{}, true},
		{"open-url", "Open a link of another qube, which is on the standard input.", &openURLCmd{}, true},
		{"fork-server", "Run commands and services in our session for the qrexec agent.", &forkServerCmd{}, false},
		{"client-vm", "Ask for a service of another qube, if dom0's policy allows it.", &clientVMCmd{}, false},
		{"gui", "Show the windows of an X display in dom0.", &guiCmd{}, false},
		{"qubesdb", "Keep the qube's database, and do what dom0 says in it.", &qubesdbCmd{}, false},
	}
}

// newParser makes the parser of a command line. Of the commands it knows that
// one alone which is called: qubes wait for agents to start, and calls for
// their client, and to look at all of them takes a sixth of such a start.
func newParser(cli *flags, args []string) (*kong.Kong, error) {
	list := commands()
	if i := slices.IndexFunc(list, func(c command) bool { return len(args) > 0 && c.name == args[0] }); i >= 0 {
		list = list[i : i+1]
	}
	options := []kong.Option{kong.Name("qubes-agent"), kong.Description("The agents of a qube."),
		kong.Vars{"local": link.Local, "trigger": qrexec.TriggerSocket, "forks": qrexec.ForkServerSocket, "status": session.StateFile}}
	for _, c := range list {
		var tags []string
		if c.hidden {
			tags = append(tags, `hidden:""`)
		}
		options = append(options, kong.DynamicCommand(c.name, c.help, "", c.of, tags...))
	}
	return kong.New(cli, options...)
}

type initCmd struct{}

func (initCmd) Run(log *slog.Logger) error { return pid1.Run(log) }

type guiCmd struct {
	Display string `help:"X display." env:"DISPLAY" default:":0"`
	Layout  string `help:"Keyboard: layout[+variant[+options]] (default: dom0's, as QubesDB tells it)." env:"QUBES_KEYBOARD_LAYOUT"`
	Peer    uint32 `help:"Domain that shows the windows." default:"0"`
	Status  string `help:"File that tells how far the agent is; empty for none." default:"${status}"`
	Local   string `help:"Socket of the link's relay." default:"${local}"`
}

func (c guiCmd) Run(ctx context.Context, log *slog.Logger) error {
	t, err := transport(c.Local)
	if err != nil {
		return err
	}
	o := gui.Options{Display: c.Display, Peer: vchan.Domain(c.Peer), Layout: c.Layout, StatusFile: c.Status, Log: log}
	if o.Layout == "" {
		o.Layouts = qubesdb.Follow(ctx, qdb.Dir, "/keyboard-layout")
		select {
		case o.Layout = <-o.Layouts:
		case <-time.After(layoutPatience):
			o.Layout = "us" // until it is told
		}
	}
	return gui.Run(ctx, t, o)
}

// layoutPatience is how long windows wait for the keyboard's layout: changing
// it under a program that has just started would only disturb.
const layoutPatience = 300 * time.Millisecond

// over is closed when nobody can write to a descriptor any more; nil for
// descriptor 0.
func over(fd int) <-chan struct{} {
	if fd <= 0 {
		return nil
	}
	f := os.NewFile(uintptr(fd), "settled")
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		defer f.Close()
		_, _ = f.Read(make([]byte, 1)) // nothing is ever written
	}()
	return closed
}

// transport is upstream's sockets for an agent started by hand with its
// variables set, else the relay.
func transport(local string) (vchan.Transport, error) {
	u, ok, err := vchan.FromEnv()
	if err != nil || ok {
		return u, err
	}
	return &link.Transport{Path: local}, nil
}

type qrexecCmd struct {
	Local            string `help:"Socket of the link's relay." default:"${local}"`
	Share            bool   `help:"Be that relay: hold the link to dom0 for all agents."`
	AgentSocket      string `help:"Socket for programs that ask for services elsewhere." default:"${trigger}" placeholder:"PATH"`
	ForkServerSocket string `help:"Socket of a user's fork server, %s being the user." default:"${forks}" placeholder:"PATH"`
	NoForkServer     bool   `help:"Start all programs from here."`
	SettledFD        int    `name:"settled-fd" help:"Descriptor whose end tells that commands may run." placeholder:"N"`
}

func (c qrexecCmd) Run(ctx context.Context, log *slog.Logger) error {
	// It passes things on and computes nothing: without a second thread at work,
	// a call is handed on without waking another processor.
	runtime.GOMAXPROCS(1)
	serve := func(ctx context.Context, t vchan.Transport) error {
		o := qrexec.Options{Log: log, Settled: over(c.SettledFD), Trigger: c.AgentSocket}
		if _, sockets := t.(*vchan.Unix); sockets && !c.NoForkServer { // over the link, a fork server could open no channel
			o.ForkServer = c.ForkServerSocket
		}
		return qrexec.Run(ctx, t, o)
	}
	if !c.Share {
		t, err := transport(c.Local)
		if err != nil {
			return err
		}
		return ended(ctx, serve(ctx, t))
	}
	up := &link.Transport{Path: link.Upstream}
	relay := link.Relay{Link: up, Local: c.Local, Log: log}
	both, end := context.WithCancel(ctx)
	defer end()
	shared := make(chan error, 1)
	go func() {
		defer end() // one does not go on without the other
		shared <- relay.Run(both)
	}()
	err := serve(both, up)
	end()
	if failed := <-shared; !errors.Is(failed, context.Canceled) {
		err = failed
	}
	return ended(ctx, err)
}

type forkServerCmd struct {
	Socket string `arg:"" optional:"" help:"Where the agent hands calls over (default: upstream's place for the user)."`
	Local  string `help:"Socket of the link's relay." default:"${local}"`
}

func (c forkServerCmd) Run(ctx context.Context, log *slog.Logger) error {
	t, err := transport(c.Local)
	if err != nil {
		return err
	}
	return ended(ctx, qrexec.ServeForks(ctx, t, c.Socket, qrexec.Options{Log: log}))
}

type clientVMCmd struct {
	AgentSocket    string   `help:"The agent's socket." default:"${trigger}" placeholder:"PATH"`
	Local          string   `help:"Socket of the link's relay." default:"${local}"`
	Source         string   `short:"s" help:"Name to present as the source, for relays."`
	Prefix         string   `short:"p" help:"Data to send before the input." placeholder:"DATA"`
	BufferSize     int      `help:"Taken for compatibility: buffers grow by themselves." hidden:""`
	FilterStdout   bool     `short:"t" name:"filter-escape-chars-stdout" help:"Filter what could steer a terminal from the output (default on a terminal)."`
	FilterStderr   bool     `short:"T" name:"filter-escape-chars-stderr" help:"The same for the error output."`
	UseStdinSocket bool     `help:"The standard input is a socket for both directions."`
	NoFilterStdout bool     `name:"no-filter-escape-chars-stdout" help:"Never filter the output."`
	NoFilterStderr bool     `name:"no-filter-escape-chars-stderr" help:"Never filter the error output."`
	Target         string   `arg:"" help:"The qube; empty or @default: policy chooses."`
	Service        string   `arg:"" help:"SERVICE or SERVICE+ARGUMENT."`
	Program        []string `arg:"" optional:"" passthrough:"" help:"Program to connect instead of our own input and output."`
}

type qubesdbCmd struct {
	Local string `help:"Socket of the link's relay." default:"${local}"`
	Root  string `help:"Folder to work in as if it were the qube's root: for an agent that is started by hand." default:"/" type:"path"`
}

func (c qubesdbCmd) Run(ctx context.Context, log *slog.Logger) error {
	t, err := transport(c.Local)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return qubesdb.Run(ctx, t, qubesdb.Options{Root: c.Root, Program: self, Log: log})
}

// statusError ends the process with a status of its own.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("status %d", int(e)) }

func (c clientVMCmd) Run(ctx context.Context) error {
	t, err := transport(c.Local)
	if err != nil {
		return err
	}
	status, err := vmclient.Run(ctx, vmclient.Call{
		Trigger: c.AgentSocket, Transport: t, Source: c.Source, Target: c.Target, Service: c.Service, Prefix: []byte(c.Prefix),
		FilterStdout: c.FilterStdout || isTerminal(os.Stdout) && !c.NoFilterStdout,
		FilterStderr: c.FilterStderr || isTerminal(os.Stderr) && !c.NoFilterStderr,
		Program:      c.Program, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, StdinSocket: c.UseStdinSocket,
	})
	if errors.Is(err, vmclient.ErrRefused) {
		fmt.Fprintln(os.Stderr, "Request refused") // upstream's words, which scripts look for
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return statusError(status & 0xff)
}

// plainCall reads the command line of a call without options. Scripts start the
// client once a call, and the parser takes a sixth of its start.
func plainCall(args []string) (clientVMCmd, bool) {
	if len(args) < 3 || args[0] != "client-vm" {
		return clientVMCmd{}, false
	}
	for _, word := range args[1:min(len(args), 4)] { // the program has options of its own
		if strings.HasPrefix(word, "-") {
			return clientVMCmd{}, false
		}
	}
	c := clientVMCmd{AgentSocket: qrexec.TriggerSocket, Local: link.Local, Target: args[1], Service: args[2]}
	if len(args) > 3 {
		c.Program = args[3:]
	}
	return c, true
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

type unpackCmd struct{}

func (unpackCmd) Run() error {
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	return statusError(filecopy.Call{
		Argument: os.Getenv("QREXEC_SERVICE_ARGUMENT"), Source: os.Getenv("QREXEC_REMOTE_DOMAIN"), Home: home,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Lock: filecopy.Jail,
	}.Serve())
}

type openFileCmd struct{}

func (openFileCmd) Run(ctx context.Context) error {
	return plain(open.File(ctx, os.Stdin, os.Stdout, os.TempDir(), os.Getenv("QREXEC_REMOTE_DOMAIN"), open.FromEnv(os.Stderr).Open))
}

type openURLCmd struct{}

func (openURLCmd) Run(ctx context.Context) error {
	return plain(open.URL(ctx, os.Stdin, open.FromEnv(os.Stderr).Open))
}

// plain says what went wrong as programs do, to the person at the other end.
func plain(err error) error {
	if err == nil {
		return nil
	}
	fmt.Fprintln(os.Stderr, err)
	return statusError(1)
}

// ended is nil when a program stopped because it was asked to.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// byName tells which arguments stand for a name of the binary.
func byName(argv0 string) []string {
	switch filepath.Base(argv0) {
	case "init":
		return []string{"init"}
	case "qubes-gui":
		return []string{"gui"}
	case "qrexec-agent":
		return []string{"qrexec"}
	case "qrexec-fork-server":
		return []string{"fork-server"}
	case "qrexec-client-vm":
		return []string{"client-vm"}
	case "qubesdb-daemon":
		return []string{"qubesdb"}
	}
	return nil
}

// runTool is one of the tools of the qube's user.
func runTool(name string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer stop()
	t, err := transport(link.Local)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return tools.Run(ctx, tools.Where{Trigger: qrexec.TriggerSocket, Transport: t, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}, name, os.Args[1:])
}

func main() {
	if name := filepath.Base(os.Args[0]); slices.Contains(tool.Names(), name) {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
		status := tool.Tool{Dir: qdb.Dir, Name: name, Stdout: os.Stdout, Stderr: os.Stderr}.Run(ctx, os.Args[1:])
		stop()
		os.Exit(status)
	}
	if name := filepath.Base(os.Args[0]); slices.Contains(tools.Names(), name) {
		os.Exit(runTool(name))
	}
	args := append(byName(os.Args[0]), os.Args[1:]...)
	if c, ok := plainCall(args); ok {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
		err := c.Run(ctx)
		stop()
		status := statusError(1)
		if !errors.As(err, &status) {
			fmt.Fprintln(os.Stderr, "qrexec-client-vm:", err)
		}
		os.Exit(int(status))
	}
	var cli flags
	parser, err := newParser(&cli, args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "qubes-agent:", err)
		os.Exit(1)
	}
	k, err := parser.Parse(args)
	parser.FatalIfErrorf(err)

	level := slog.LevelInfo
	if cli.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("agent", k.Selected().Name)
	ctx, stop := context.Background(), func() {}
	if k.Selected().Name != "init" { // which reads signals itself
		ctx, stop = signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	}
	k.BindTo(ctx, (*context.Context)(nil))
	k.Bind(log)
	err = k.Run()
	stop()
	if status := statusError(0); errors.As(err, &status) {
		os.Exit(int(status))
	}
	if err != nil {
		log.Error("failed", "err", err)
		os.Exit(1)
	}
}
