// Command qrexec is dom0's command line of qrexec by upstream's names
// (spec/qrexec.md §15). As qrexec-client it runs a command or a service in a
// qube; as `qrexec serve` it runs dom0's own services for the qubes that may
// call them.
package main

import (
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"
)

func main() {
	args := os.Args[1:]
	if name := filepath.Base(os.Args[0]); isPolicyName(name) {
		os.Exit(decide(name, args))
	}
	if filepath.Base(os.Args[0]) == "qrexec-client" || len(args) == 0 || args[0] != "serve" && args[0] != "client" {
		os.Exit(clientMain(args))
	}
	if args[0] == "client" {
		os.Exit(clientMain(args[1:]))
	}
	os.Exit(serveMain(args[1:]))
}

// parse reads a command line, or ends the process.
func parse(flags any, args []string, name, description string) {
	parser := kong.Must(flags, kong.Name(name), kong.Description(description), kong.UsageOnError())
	_, err := parser.Parse(args)
	parser.FatalIfErrorf(err)
}
