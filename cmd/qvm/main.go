// Command qvm is the command line of dom0, and of qubes that dom0's policy
// lets use the Admin API. It is called by the name of a tool (qvm-ls, qvm-run,
// …) or with one as its first argument (qvm ls …).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cubicle/daemon/admin/qvm"
)

func main() {
	name := filepath.Base(os.Args[0])
	from, err := remote()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: error: %v\n", name, err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	status := qvm.MainIn(ctx, qvm.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, from, append([]string{name}, os.Args[1:]...))
	stop()
	os.Exit(status)
}
