// Command qubesdb reads and writes the databases of qubes from dom0; its names
// are upstream's: qubesdb-read, qubesdb-list, … (package daemon/qubesdb/tool).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
	"cubicle/daemon/qubesdb/tool"
)

func main() {
	root, err := paths.FromEnv()
	if err != nil {
		fmt.Fprintln(os.Stderr, "qubesdb:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	status := tool.Tool{Dir: root.RunQubes(), Name: filepath.Base(os.Args[0]), Stdout: os.Stdout, Stderr: os.Stderr}.Run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}
