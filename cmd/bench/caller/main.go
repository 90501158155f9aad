// Command caller is what the bench runs inside qubes: it makes calls to
// another qube and is the service at their end, and it does the same without
// any call, which calls are compared with. It prints one line of JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kong"

	"cubicle/agents/link"
	"cubicle/agents/qrexec"
	"cubicle/agents/qrexec/vmclient"
)

type commands struct {
	Calls  callsCmd  `cmd:"" help:"Make calls one after another, or side by side."`
	Exec   execCmd   `cmd:"" help:"Start a program again and again."`
	Ping   pingCmd   `cmd:"" help:"Send messages to and fro in one call, or over a bare socket."`
	Stream streamCmd `cmd:"" help:"Send a stream through a call, or through bare relays."`
	Timed  timedCmd  `cmd:"" help:"Run a program and tell how long it took."`

	Echo  echoCmd  `cmd:"" help:"Be the service that answers with what it reads."`
	Sink  sinkCmd  `cmd:"" help:"Be the service that reads to the end."`
	Gen   genCmd   `cmd:"" help:"Write so many bytes."`
	Relay relayCmd `cmd:"" help:"Pass input on to the output."`
}

// clientProgram is the program by which scripts make calls.
const clientProgram = "/usr/bin/qrexec-client-vm"

// callee is whom to call.
type callee struct {
	Target  string `arg:"" help:"Qube."`
	Service string `arg:""`
}

func (c callee) call() vmclient.Call {
	return vmclient.Call{Trigger: qrexec.TriggerSocket, Transport: &link.Transport{Path: link.Local}, Target: c.Target, Service: c.Service,
		Stderr: os.Stderr}
}

// tell prints what was measured.
func tell(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

type callsCmd struct {
	callee
	Count    int  `default:"100"`
	Parallel int  `default:"1"`
	Client   bool `help:"Each by a program of its own."`
}

// Calls is what callsCmd prints, in nanoseconds.
type Calls struct {
	Median, P99, Took int64
	Lost              int
	Why               string // the last one was
}

func (c callsCmd) Run() error {
	one := func() error {
		call := c.call()
		call.Local = func(_ context.Context, out io.WriteCloser, in io.Reader) int {
			_ = out.Close() // a service that has ended already needs no input
			_, _ = io.Copy(io.Discard, in)
			return 0
		}
		status, err := vmclient.Run(context.Background(), call)
		if err == nil && status != 0 {
			err = fmt.Errorf("status %d", status)
		}
		return err
	}
	if c.Client {
		one = func() error { return exec.Command(clientProgram, c.Target, c.Service).Run() }
	}
	return repeat(c.Count, c.Parallel, one)
}

// repeat does something so many times, several at once, and tells.
func repeat(count, parallel int, one func() error) error {
	var (
		next  atomic.Int64
		group sync.WaitGroup
		mu    sync.Mutex // guards all, lost, why
		all   []time.Duration
		out   Calls
	)
	began := time.Now()
	for range parallel {
		group.Go(func() {
			for next.Add(1) <= int64(count) {
				at := time.Now()
				err := one()
				took := time.Since(at)
				mu.Lock()
				if all = append(all, took); err != nil {
					out.Lost++
					out.Why = err.Error()
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	out.Took = int64(time.Since(began))
	slices.Sort(all)
	out.Median, out.P99 = int64(all[len(all)/2]), int64(all[len(all)*99/100])
	return tell(out)
}

type execCmd struct {
	Count   int      `default:"100"`
	Program []string `arg:"" passthrough:""`
}

func (c execCmd) Run() error {
	return repeat(c.Count, 1, func() error { return exec.Command(c.Program[0], c.Program[1:]...).Run() })
}

type timedCmd struct {
	Program []string `arg:"" passthrough:""`
}

func (c timedCmd) Run() error {
	cmd := exec.Command(c.Program[0], c.Program[1:]...)
	cmd.Stderr = os.Stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", c.Program[0], err)
	}
	return tell(time.Since(began))
}

type pingCmd struct {
	Bare   bool   `help:"Over a socket to a process beside this one."`
	Relays int    `help:"Bare relays on the way."`
	Count  int    `default:"1000"`
	Target string `arg:"" optional:""`

	Service string `arg:"" optional:""`
}

// messageSize is that of a message to and fro, in bytes.
const messageSize = 64

func (c pingCmd) Run() error {
	if c.Bare {
		p, err := startChain(append(slices.Repeat([]string{"relay"}, c.Relays), "echo")...)
		if err != nil {
			return err
		}
		return errors.Join(c.pingPong(p.in, p.out), p.in.CloseWrite(), p.wait())
	}
	call := callee{c.Target, c.Service}.call()
	var failed error
	call.Local = func(_ context.Context, out io.WriteCloser, in io.Reader) int {
		failed = errors.Join(c.pingPong(out, in), out.Close())
		_, _ = io.Copy(io.Discard, in) // to its end
		return 0
	}
	_, err := vmclient.Run(context.Background(), call)
	return errors.Join(failed, err)
}

func (c pingCmd) pingPong(out io.Writer, in io.Reader) error {
	const warm = 50
	var all []time.Duration
	b := make([]byte, messageSize)
	for i := range c.Count + warm {
		began := time.Now()
		if _, err := out.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(in, b); err != nil {
			return err
		}
		if i >= warm {
			all = append(all, time.Since(began))
		}
	}
	slices.Sort(all)
	return tell(all[len(all)/2])
}

type streamCmd struct {
	Bare   bool   `help:"Through as many relays as a call has."`
	Bytes  int64  `default:"1073741824"`
	Target string `arg:"" optional:""`

	Service string `arg:"" optional:""`
}

// relays are the processes between a program that calls and the service: the
// client, dom0's router and the other qube's agent.
const relays = 3

func (c streamCmd) Run() error {
	gen := fmt.Sprintf("gen --bytes=%d", c.Bytes)
	began := time.Now()
	var chain *chain
	var err error
	if c.Bare {
		chain, err = startChain(append(append([]string{gen}, slices.Repeat([]string{"relay"}, relays)...), "sink")...)
	} else {
		chain, err = startChain(gen, clientProgram+" "+c.Target+" "+c.Service)
	}
	if err != nil {
		return err
	}
	if err := chain.wait(); err != nil {
		return err
	}
	return tell(time.Since(began))
}

func main() {
	var c commands
	k := kong.Parse(&c, kong.Name("caller"), kong.Description("The bench's part inside qubes."))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "caller:", err)
		os.Exit(1)
	}
}
