package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"cubicle/daemon/engine"
	"cubicle/daemon/engine/sandbox"
	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/client"
	"cubicle/daemon/storage"
	"cubicle/guid/screen"
)

// startResult is about the beginning of a qube, and its pauses.
type startResult struct {
	trivial   samples // a trivial init, mounts ready → its first word
	prepared  samples // the same, and its mounts are made as well
	hello     samples // Start is asked of qubesd → its agent has said hello
	window    samples // StartApp(xterm) of a halted qube → drawn window
	direct    samples // xterm in dom0 → drawn window
	pause     samples
	unpause   samples
	shutdowns samples // Shutdown → halted, all mounts gone
}

// start measures how qubes begin.
func (b *bench) start(ctx context.Context, s *system, r *engineResult) error {
	q, err := s.named(ctx, "bench")
	if err != nil {
		return err
	}
	t, err := s.trivial(ctx)
	if err != nil {
		return fmt.Errorf("trivial machine: %w", err)
	}
	defer t.close()
	out := &r.start
	// One of each before it counts: caches fill.
	for i := range b.count.starts + 1 {
		prepared, bare, err := t.run(ctx)
		if err != nil {
			return fmt.Errorf("trivial machine: %w", err)
		}
		began := time.Now()
		if err := s.boot(ctx, q.UUID); err != nil {
			return err
		}
		hello := time.Since(began)
		// What follows is measured of a qube whose session stands.
		if err := call(ctx, client.Call{Root: s.root, Target: q.Name, Command: client.Service("", "qubes.WaitForSession")}); err != nil {
			return err
		}
		pause, unpause, err := s.pause(ctx, q.UUID)
		if err != nil {
			// A busy machine may not freeze in time, which costs one sample.
			b.log.Warn("no pause", "error", err)
		}
		began = time.Now()
		job, err := s.bus.Shutdown(ctx, q.UUID, false)
		if err := s.do(ctx, job, err); err != nil {
			return fmt.Errorf("shut down: %w", err)
		}
		if i == 0 {
			continue
		}
		out.shutdowns = append(out.shutdowns, time.Since(began))
		out.trivial, out.prepared = append(out.trivial, bare), append(out.prepared, prepared)
		out.hello = append(out.hello, hello)
		if pause > 0 && unpause > 0 {
			out.pause, out.unpause = append(out.pause, pause), append(out.unpause, unpause)
		}
	}
	for i := range b.count.starts/3 + 2 {
		direct, err := s.localWindow(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		job, err := s.bus.StartApp(ctx, q.UUID, "xterm")
		if err != nil {
			return err
		}
		w, err := s.find(ctx, q.Name, "XTerm")
		if err != nil {
			return err
		}
		if err := s.drawn(ctx, w); err != nil {
			return err
		}
		took := time.Since(began)
		if err := s.do(ctx, job, nil); err != nil {
			return err
		}
		if err := s.halt(ctx, q.UUID); err != nil {
			return err
		}
		if i > 0 {
			out.window, out.direct = append(out.window, took), append(out.direct, direct)
		}
	}
	return nil
}

// pause freezes a qube and thaws it.
func (s *system) pause(ctx context.Context, uuid string) (pause, unpause time.Duration, err error) {
	began := time.Now()
	job, err := s.bus.Pause(ctx, uuid)
	if err := s.do(ctx, job, err); err != nil {
		return 0, 0, fmt.Errorf("pause: %w", err)
	}
	pause = time.Since(began)
	began = time.Now()
	job, err = s.bus.Unpause(ctx, uuid)
	if err := s.do(ctx, job, err); err != nil {
		return 0, 0, fmt.Errorf("unpause: %w", err)
	}
	return pause, time.Since(began), nil
}

// localWindow starts a terminal in dom0 and ends it.
func (s *system) localWindow(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	// Its text lies below the margin that screen.IsDrawn leaves out.
	cmd := exec.CommandContext(ctx, "xterm", "-class", "Local", "-b", "24")
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = cmd.Process.Kill() // fails when it has ended
		_ = cmd.Wait()
	}()
	w, err := s.find(ctx, "", "Local")
	if err != nil {
		return 0, err
	}
	err = s.drawn(ctx, w)
	return time.Since(began), err
}

func (s *system) drawn(ctx context.Context, w screen.Window) error {
	return until(ctx, 5*time.Millisecond, "the window's content", func() (bool, error) { return s.screen.IsDrawn(w) })
}

// trivial is a machine on the same template, whose init only calls dom0.
type trivial struct {
	engine  *sandbox.Engine
	machine engine.Machine
	link    *net.UnixListener
}

// trivial makes the machine, in a root of its own.
func (s *system) trivial(ctx context.Context) (*trivial, error) {
	bases, err := filepath.Glob(filepath.Join(s.root.State(), "vm-templates/*/root*.img"))
	if err != nil || len(bases) == 0 {
		return nil, fmt.Errorf("no template: %v", err)
	}
	root := paths.Root(s.root.Join("trivial"))
	agents := root.Join("agent")
	m := engine.Machine{UUID: newUUID(), Name: "trivial", Domain: 0xfff0, Memory: 400, VCPUs: 2,
		AgentDir: agents, LinkDir: filepath.Join(root.Links(), "1")}
	for _, dir := range []string{agents, m.LinkDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if _, err := output(ctx, "cp", s.bench.tool("testinit"), filepath.Join(agents, engine.AgentBinary)); err != nil {
		return nil, err
	}
	m.Root.Base = storage.Layer{Path: bases[0], Format: storage.Raw, ReadOnly: true}
	overlay, private := storage.Layer{Path: root.Join("overlay.img"), Format: storage.Raw}, storage.Layer{Path: root.Join("private.img"), Format: storage.Raw}
	for _, l := range []storage.Layer{overlay, private} {
		if _, err := output(ctx, "mke2fs", "-q", "-F", "-t", "ext4", l.Path, "64M"); err != nil {
			return nil, err
		}
	}
	m.Root.Overlay, m.Private.Base = &overlay, private
	t := &trivial{machine: m}
	path := filepath.Join(m.LinkDir, paths.LinkSocket)
	if t.link, err = net.ListenUnix("unix", &net.UnixAddr{Name: path}); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, t.link.Close())
	}
	binary := filepath.Join(s.bench.Bin, s.engine)
	if _, err := os.Stat(binary); err != nil {
		binary = "" // the engine looks in PATH
	}
	if t.engine, err = sandbox.New(sandbox.Options{Runtime: s.engine, Binary: binary, Root: root}); err != nil {
		return nil, errors.Join(err, t.link.Close())
	}
	go func() {
		for range t.engine.Events() { // what they tell is asked below
		}
	}()
	return t, nil
}

func (t *trivial) close() {
	_ = t.engine.Kill(context.Background(), t.machine.UUID)    // it has ended, as a rule
	_ = t.engine.Release(context.Background(), t.machine.UUID) // likewise
	t.engine.Close()
	t.link.Close()
}

// run starts the machine until its init calls, and takes it away again.
func (t *trivial) run(ctx context.Context) (prepared, bare time.Duration, err error) {
	began := time.Now()
	if err := t.engine.Prepare(ctx, t.machine); err != nil {
		return 0, 0, err
	}
	ready := time.Now()
	if err := t.engine.Start(ctx, t.machine.UUID); err != nil {
		return 0, 0, err
	}
	if err := t.link.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, 0, err
	}
	conn, err := t.link.Accept()
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "ready") {
		return 0, 0, fmt.Errorf("its init says %q: %v", line, err)
	}
	prepared, bare = time.Since(began), time.Since(ready)
	if err := t.engine.Kill(ctx, t.machine.UUID); err != nil {
		return 0, 0, err
	}
	return prepared, bare, t.engine.Release(ctx, t.machine.UUID)
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
