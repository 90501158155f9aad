// Command qrexec is dom0's command line of qrexec by upstream's names
// (spec/qrexec.md §15). As qrexec-client it runs a command or a service in a
// qube.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/client"
	"cubicle/daemon/qrexec/wire"
)

type clientFlags struct {
	Target       string `short:"d" required:"" help:"The qube: name or domain id." placeholder:"QUBE"`
	JustExec     bool   `short:"e" help:"Start the command and leave; its data goes nowhere."`
	ExitZero     bool   `short:"E" help:"Exit with 0 whatever the command's status is."`
	FilterStdout bool   `short:"t" help:"Replace control and non-ASCII characters in the output."`
	FilterStderr bool   `short:"T" help:"Replace control and non-ASCII characters in the error output."`
	Timeout      uint   `short:"w" default:"10" help:"Seconds that the qube may take to connect." placeholder:"SEC"`
	Prefix       string `short:"p" help:"Data to send before the standard input." placeholder:"DATA"`
	SocketDir    string `help:"The system's root folder is found two folders above this one." placeholder:"DIR" hidden:""`
	Command      string `arg:"" help:"USER:COMMAND, or USER:QUBESRPC SERVICE SOURCE; USER may be DEFAULT."`
}

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "client" {
		args = args[1:]
	}
	var f clientFlags
	parser := kong.Must(&f, kong.Name("qrexec-client"), kong.Description("Runs a command or a service in a qube."), kong.UsageOnError())
	_, err := parser.Parse(args)
	parser.FatalIfErrorf(err)
	os.Exit(run(f))
}

func run(f clientFlags) int {
	root, err := paths.FromEnv()
	if f.SocketDir != "" {
		root, err = paths.New(f.SocketDir + "/../..")
	}
	if err != nil {
		return report(f, 1, err)
	}
	if f.Target == "dom0" || f.Target == "@adminvm" || f.Target == "0" {
		return report(f, 1, errors.New("calls to dom0 itself are not made here: run the command"))
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	status, err := client.Run(ctx, client.Call{
		Root:           root,
		Target:         f.Target,
		Command:        f.Command,
		JustExec:       f.JustExec,
		Stdin:          os.Stdin,
		Stdout:         output(os.Stdout, f.FilterStdout),
		Stderr:         output(os.Stderr, f.FilterStderr),
		PrefixData:     []byte(f.Prefix),
		ConnectTimeout: time.Duration(f.Timeout) * time.Second,
	})
	return report(f, status, err)
}

func output(w io.Writer, filter bool) io.Writer {
	if filter {
		return wire.NewEscapeFilter(w)
	}
	return w
}

func report(f clientFlags, status int, err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "qrexec-client:", err)
	}
	if f.ExitZero {
		return 0
	}
	return status & 0xff
}
