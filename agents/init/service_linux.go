package pid1

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The pause before a service starts again doubles from the first to the last;
// a service that ran for steady starts with the first again.
const (
	firstRestart = 100 * time.Millisecond
	lastRestart  = 5 * time.Second
	steady       = 20 * time.Second
)

// firstFD is the first descriptor after the standard ones.
const firstFD = 3

// service is a program that init keeps running.
type service struct {
	name string
	argv []string
	env  []string
	cred *syscall.Credential // nil: root

	// readyFD is the descriptor on which the program writes a line when it
	// serves; 0 when it serves at once.
	readyFD int
	ready   *condition // follows that, may be nil

	after []*condition // what must hold before it starts

	inherits *os.File // becomes its descriptor firstFD; nil for none

	// activates says that what runs in its session (setsid) are services
	// that it has started, which end when it does.
	activates bool
}

// condition is a fact that comes and goes.
type condition struct {
	mu     sync.Mutex
	holds  bool
	change chan struct{} // closed at the next change
	notify func()        // called after each change, may be nil
}

func newCondition() *condition { return &condition{change: make(chan struct{})} }

func (c *condition) set(holds bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	changed := c.holds != holds
	if changed {
		c.holds = holds
		close(c.change)
		c.change = make(chan struct{})
	}
	notify := c.notify
	c.mu.Unlock()
	if changed && notify != nil {
		notify()
	}
}

func (c *condition) get() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holds
}

// wait returns when the condition holds, or the context's error.
func (c *condition) wait(ctx context.Context) error {
	for {
		c.mu.Lock()
		holds, change := c.holds, c.change
		c.mu.Unlock()
		if holds {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// supervisor keeps services running.
type supervisor struct {
	reaper *reaper
	log    *slog.Logger

	mu   sync.Mutex // guards pids
	pids map[int]service
}

func newSupervisor(r *reaper, log *slog.Logger) *supervisor {
	return &supervisor{reaper: r, log: log, pids: make(map[int]service)}
}

// running returns the services by process.
func (s *supervisor) running() map[int]service {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.pids)
}

// keep runs the service until ctx ends, and again whenever it ends before.
// The last process is left to the caller, who signals it.
func (s *supervisor) keep(ctx context.Context, v service) {
	log := s.log.With("service", v.name)
	pause := firstRestart
	for {
		for _, c := range v.after {
			if c.wait(ctx) != nil {
				return
			}
		}
		began := time.Now()
		how, err := s.once(ctx, v, log)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steady {
			pause = firstRestart
		}
		if err != nil {
			log.Error("cannot start", "err", err, "again in", pause)
		} else {
			log.Warn("ended", "how", how, "again in", pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, lastRestart)
	}
}

// once runs the service to its end, or until ctx ends.
func (s *supervisor) once(ctx context.Context, v service, log *slog.Logger) (string, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return "", err
	}
	defer null.Close()
	files := []*os.File{null, os.Stderr, os.Stderr}
	if v.inherits != nil {
		files = append(files, v.inherits)
	}
	var said, says *os.File
	if v.readyFD > 0 {
		if said, says, err = os.Pipe(); err != nil {
			return "", err
		}
		for len(files) < v.readyFD {
			files = append(files, null)
		}
		files = append(files, says)
	}
	// A session of its own, so that a signal to one service's group is not
	// one to all.
	c, err := s.reaper.start(v.argv[0], v.argv, v.env, files, &syscall.SysProcAttr{Credential: v.cred, Setsid: true})
	if says != nil {
		says.Close()
	}
	if err != nil {
		if said != nil {
			said.Close()
		}
		return "", err
	}
	s.mu.Lock()
	s.pids[c.pid] = v
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.pids, c.pid)
		s.mu.Unlock()
	}()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if said != nil {
			if n, _ := said.Read(make([]byte, 64)); n == 0 {
				return // it ended before it served
			}
		}
		log.Debug("serves", "pid", c.pid)
		v.ready.set(true)
	}()
	defer func() {
		if said != nil {
			said.Close() // ends the read
		}
		<-served
		v.ready.set(false)
	}()
	select {
	case ws := <-c.done:
		return describe(ws), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// The shares of an orderly stop: programs get the first part to save and end,
// then the services theirs; whatever is left is killed. What services have
// activated gets the short part, and then ends with them.
const (
	stopPrograms  = 7 * time.Second
	stopActivated = 200 * time.Millisecond
	stopServices  = 3 * time.Second
)

// stop ends every process of the qube but our own. services are those that
// the user's programs need while they end: they are asked last.
func (s *supervisor) stop(services map[int]service) error {
	all := func() ([]int, error) { return processes(func(process) bool { return true }) }
	programs := func() ([]int, error) {
		return processes(func(p process) bool { _, ok := services[p.pid]; return !ok })
	}
	users := func() ([]int, error) {
		return processes(func(p process) bool { _, ok := services[p.pid]; return !ok && !services[p.session].activates })
	}

	left, err := programs()
	if err != nil {
		return err
	}
	for _, pid := range left {
		// A shell ignores TERM but ends on HUP; a stopped program needs CONT
		// to see either.
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGCONT} {
			unix.Kill(pid, sig) // it may have ended meanwhile
		}
	}
	if !s.await(programs, stopActivated) && !s.await(users, stopPrograms-stopActivated) {
		if left, err = users(); err == nil {
			s.log.Warn("programs did not end when asked", "programs", names(left))
		}
	}
	for pid := range services {
		unix.Kill(pid, unix.SIGTERM)
	}
	if s.await(all, stopServices) {
		return nil
	}
	if left, err = all(); err == nil && len(left) > 0 {
		s.log.Warn("killing what did not end", "programs", names(left))
	}
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill all: %w", err)
	}
	s.await(all, time.Second)
	return nil
}

// await waits until list is empty, and says whether it is.
func (s *supervisor) await(list func() ([]int, error), limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for {
		s.reaper.collect()
		left, err := list()
		if err == nil && len(left) == 0 {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
}
