package filecopy

import (
	"fmt"
	"io"

	wire "cubicle/daemon/qrexec/filecopy"
)

// Call is one call of the service.
type Call struct {
	Argument string // of the service
	Source   string // the qube that sends
	Home     string // of the user who gets the files
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	// Lock is called when only the stream is left to do; Jail in a process
	// of its own, nil where others live in it.
	Lock func(dir string) error
}

// Serve is the service: it receives the files and returns its exit status.
func (c Call) Serve() int {
	if c.Argument != "" && c.Argument != wire.AllowAllNames {
		fmt.Fprintf(c.Stderr, "%s takes no argument %q\n", wire.Service, c.Argument)
		return 1
	}
	dir, err := Incoming(c.Home, c.Source)
	if err == nil && c.Lock != nil {
		err = c.Lock(dir.Name())
	}
	if err != nil {
		fmt.Fprintln(c.Stderr, err)
		dir.Close() // nil, or of no use
		if _, err := c.Stdout.Write(wire.Answer{Code: codeOf(err)}.Bytes()); err != nil {
			return 1
		}
		return int(codeOf(err) % 256)
	}
	defer dir.Close()
	status, err := Receiver{Dir: dir, AllNames: c.Argument == wire.AllowAllNames}.Receive(c.Stdin, c.Stdout)
	if err != nil {
		fmt.Fprintln(c.Stderr, err)
	}
	return status
}
