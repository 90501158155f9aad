// Package launch runs the programs of a desktop as children of one process:
// it starts them, gives their output a coloured prefix, starts a daemon again
// that died, and stops everything in the reverse order.
//
// A child dies with us even when we are killed: the kernel sends it SIGTERM.
// Only what this package started is ever signalled.
package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Program is what to run.
type Program struct {
	Name string // short, for the log
	Args []string
	Env  []string // the whole environment; nil for ours
	Dir  string
	// Files become descriptors 3, 4, … of the child. Start closes them.
	Files []*os.File
	// Stdin, if not nil, is the child's standard input. Start closes it.
	Stdin *os.File
	// Output and Errors, if not nil, get the child's standard output and
	// standard error in place of the log.
	Output, Errors io.Writer
	// Restart starts the program again when it ends by itself, with pauses
	// from 100 ms up to 5 s. Files and Stdin cannot be given then.
	Restart bool
	// Grace is how long Stop waits after SIGTERM before SIGKILL; 5 s if 0.
	Grace time.Duration
}

// Group is a set of programs that stop together.
type Group struct {
	log   *Log
	start chan func() // runs on one thread that lives as long as the group

	mu       sync.Mutex // guards what follows
	stopping bool
	members  []*Child // in order of their start
}

// NewGroup returns an empty group whose programs log to log.
func NewGroup(log *Log) *Group {
	g := &Group{log: log, start: make(chan func())}
	go func() {
		// A parent-death signal is tied to the thread that forked.
		runtime.LockOSThread()
		for f := range g.start {
			f()
		}
	}()
	return g
}

// Child is a program that was started.
type Child struct {
	program Program
	group   *Group
	done    chan struct{} // closed when it has ended for good
	err     error         // valid once done is closed

	mu      sync.Mutex // guards what follows
	cmd     *exec.Cmd
	stopped bool
	ends    int   // how often it has ended
	last    error // how it ended then
}

// Start runs p. The error tells that it could not be run at all.
func (g *Group) Start(p Program) (*Child, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping {
		closeFiles(p)
		return nil, errors.New("the desktop is stopping")
	}
	c := &Child{program: p, group: g, done: make(chan struct{})}
	wait, err := c.spawn()
	closeFiles(p)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	g.members = append(g.members, c)
	go c.follow(wait)
	return c, nil
}

func closeFiles(p Program) {
	for _, f := range p.Files {
		f.Close()
	}
	if p.Stdin != nil {
		p.Stdin.Close()
	}
}

// spawn starts the program once and returns what waits for its end.
func (c *Child) spawn() (func() error, error) {
	p := c.program
	cmd := exec.Command(p.Args[0], p.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.ExtraFiles = p.Env, p.Dir, p.Files
	if p.Stdin != nil {
		cmd.Stdin = p.Stdin
	}
	// A group of its own: Ctrl-C on the terminal reaches us alone, and we
	// stop the children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	lines := c.group.log.Writer(p.Name)
	cmd.Stderr = lines
	cmd.Stdout = lines
	if p.Output != nil {
		cmd.Stdout = p.Output
	}
	if p.Errors != nil {
		cmd.Stderr = p.Errors
	}
	// A grandchild that keeps our pipe open must not keep us waiting.
	cmd.WaitDelay = time.Second
	var err error
	started := make(chan struct{})
	c.group.start <- func() {
		err = cmd.Start()
		close(started)
	}
	<-started
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.cmd = cmd
	c.mu.Unlock()
	return cmd.Wait, nil
}

// follow waits for the program's end, starting it again where that is asked.
func (c *Child) follow(wait func() error) {
	defer close(c.done)
	pause := 100 * time.Millisecond
	for {
		begun := time.Now()
		err := wait()
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil
		}
		c.mu.Lock()
		c.ends++
		c.last = err
		c.mu.Unlock()
		if c.isStopped() || !c.program.Restart {
			c.err = err
			return
		}
		if time.Since(begun) > 2*time.Second {
			pause = 100 * time.Millisecond
		}
		slog.Warn(c.program.Name+" ended; starting it again", "how", ending(err), "in", pause)
		for {
			time.Sleep(pause)
			pause = min(2*pause, 5*time.Second)
			if c.isStopped() {
				return
			}
			if wait, err = c.spawn(); err == nil {
				break
			}
			slog.Error("cannot start "+c.program.Name+" again", "error", err)
		}
		if c.isStopped() { // Stop came between the check and the start
			c.signal(syscall.SIGTERM)
		}
	}
}

func ending(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

func (c *Child) isStopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped
}

// Done is closed when the child has ended for good.
func (c *Child) Done() <-chan struct{} { return c.done }

// Err is how the child ended; valid once Done is closed.
func (c *Child) Err() error { return c.err }

// PID is the process id of the running or last run.
func (c *Child) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cmd.Process.Pid
}

func (c *Child) signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// os.Process knows whether the child was reaped, so this never reaches a
	// stranger with the same number.
	_ = c.cmd.Process.Signal(s)
}

// Stop ends the child: SIGTERM, then after its grace SIGKILL.
func (c *Child) Stop() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	select {
	case <-c.done:
		return
	default:
	}
	c.signal(syscall.SIGTERM)
	grace := c.program.Grace
	if grace == 0 {
		grace = 5 * time.Second
	}
	select {
	case <-c.done:
	case <-time.After(grace):
		slog.Warn(c.program.Name+" did not stop; killing it", "after", grace)
		c.signal(syscall.SIGKILL)
		<-c.done
	}
}

// Stop ends all programs, the youngest first. Later starts fail.
func (g *Group) Stop() {
	g.mu.Lock()
	if g.stopping {
		g.mu.Unlock()
		return
	}
	g.stopping = true
	members := g.members
	g.mu.Unlock()
	for i := len(members) - 1; i >= 0; i-- {
		members[i].Stop()
	}
	close(g.start)
}

// WaitFor calls ready every few milliseconds until it reports true, the
// program ends, or ctx does. It is for programs that tell their readiness by
// a socket. A program that ends before that is broken: it is not given another
// try.
func (c *Child) WaitFor(ctx context.Context, ready func() bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready() {
			return nil
		}
		c.mu.Lock()
		ends, last := c.ends, c.last
		c.mu.Unlock()
		if ends > 0 {
			return fmt.Errorf("%s ended at once: %s", c.program.Name, ending(last))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", c.program.Name, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
