// Command qvm is dom0's command line. It is called by the name of a tool
// (qvm-ls, qvm-run, …) or with one as its first argument (qvm ls …).
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cubicle/daemon/admin/qvm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	status := qvm.Main(ctx, qvm.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr},
		append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...))
	stop()
	os.Exit(status)
}
