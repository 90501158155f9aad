package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/paths"
	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
)

// Probe runs a machine with a program of a few instructions on volumes of a
// few pages, so that everything is used that a qube needs.
func (e *Engine) Probe(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return unusable("%s needs root here: start qubesd as root (sudo)", e.options.Runtime)
	}
	if _, err := exec.LookPath(e.options.Binary); err != nil {
		return unusable("%s is not installed: %s", e.options.Runtime, mend[e.options.Runtime])
	}
	err := e.probe(ctx)
	if err != nil && !errors.Is(err, engine.ErrUnusable) && ctx.Err() == nil {
		err = unusable("a test machine did not run: %w", err)
	}
	return err
}

func (e *Engine) probe(ctx context.Context) (err error) {
	if err := os.MkdirAll(e.options.Root.Run(), 0o755); err != nil {
		return err
	}
	held, err := e.probeFolder()
	if err != nil {
		return err
	}
	defer held.Close()
	dir := held.Name()
	defer os.RemoveAll(dir)
	trial, err := e.trial(dir)
	if err != nil {
		return err
	}
	defer trial.Close()
	m := engine.Machine{
		// Control groups are named after machines, and several probes may run
		// at once: each has an id of its own.
		UUID: string(qube.NewUUID()), Name: "probe", Domain: 0xfffe, Memory: 128, VCPUs: 1,
		AgentDir: filepath.Join(dir, "agent"), LinkDir: filepath.Join(dir, "link"),
	}
	for _, d := range []string{m.AgentDir, m.LinkDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(m.AgentDir, engine.AgentBinary), waiter(), 0o755); err != nil {
		return err
	}
	m.Root.Base = storage.Layer{Path: filepath.Join(dir, "root.img"), Format: storage.Raw, ReadOnly: true}
	m.Root.Overlay = &storage.Layer{Path: filepath.Join(dir, "overlay.img"), Format: storage.Raw}
	m.Private.Base = storage.Layer{Path: filepath.Join(dir, "private.img"), Format: storage.Raw}
	for _, l := range []storage.Layer{m.Root.Base, *m.Root.Overlay, m.Private.Base} {
		if err := smallImage(ctx, l.Path); err != nil {
			return err
		}
	}
	if err := trial.Prepare(ctx, m); err != nil {
		return err
	}
	defer func() {
		ctx := context.WithoutCancel(ctx)
		err = errors.Join(err, trial.Release(ctx, m.UUID), trial.Forget(ctx, m.UUID))
	}()
	if err := trial.Start(ctx, m.UUID); err != nil {
		return err
	}
	return trial.Kill(ctx, m.UUID)
}

// trial is an engine like e for the machines of a probe in folder dir.
func (e *Engine) trial(dir string) (*Engine, error) {
	root, err := paths.New(dir)
	if err != nil {
		return nil, err
	}
	options := e.options
	options.Root, options.Command = root, nil
	return New(options)
}

// probeFolder makes a folder for one probe and clears away what killed ones
// left. A folder is in use as long as somebody holds the lock on it, as the
// caller does with what this returns.
func (e *Engine) probeFolder() (held *os.File, err error) {
	run, err := os.Open(e.options.Root.Run())
	if err != nil {
		return nil, err
	}
	defer run.Close()
	// Nobody may take a folder that has no lock yet for an abandoned one.
	if err := unix.Flock(int(run.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	old, err := filepath.Glob(filepath.Join(run.Name(), "probe-*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range old {
		if err := e.clearProbe(dir); err != nil {
			e.log.Warn("what a killed probe left cannot be cleared away", "folder", dir, "error", err)
		}
	}
	dir, err := os.MkdirTemp(run.Name(), "probe-")
	if err != nil {
		return nil, err
	}
	if held, err = os.Open(dir); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		held.Close()
		return nil, err
	}
	return held, nil
}

// clearProbe removes the folder of a probe with its machines, unless the probe
// is under way.
func (e *Engine) clearProbe(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		return err
	}
	trial, err := e.trial(dir)
	if err != nil {
		return err
	}
	defer trial.Close()
	machines, err := os.ReadDir(trial.options.Root.Machines())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, m := range machines {
		if err := trial.wipe(m.Name()); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// wipe ends a machine that nobody follows, in whatever state it is.
func (e *Engine) wipe(uuid string) error {
	if !uuids.MatchString(uuid) {
		return nil
	}
	r, err := e.readRecord(uuid)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r.Supervisor != nil {
		if p, err := r.Supervisor.open(); err == nil {
			defer p.close()
			if err := endSupervisor(p, uuid); err != nil {
				return err
			}
		}
	}
	return errors.Join(e.clear(uuid, r.Loops), e.ranges.Forget(e.options.Root, uuid))
}

func smallImage(ctx context.Context, path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(path, 8<<20); err != nil {
		return err
	}
	tool := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", path)
	tool.Env = append(os.Environ(), "LC_ALL=C")
	out, err := tool.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return unusable("mke2fs is not installed: apt-get install e2fsprogs")
	}
	if err != nil && strings.Contains(string(out), "No space left") {
		return fmt.Errorf("mke2fs: %w", unix.ENOSPC)
	}
	if err != nil {
		return fmt.Errorf("mke2fs: %w: %s", err, plain(strings.TrimSpace(string(out))))
	}
	return nil
}

// waiter is a static program that waits for ever.
func waiter() []byte {
	const (
		headers = 64 + 56
		address = 0x400000
	)
	machine, code := uint16(62), []byte{
		0xb8, 34, 0, 0, 0, // mov eax, pause
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to the first
	}
	if runtime.GOARCH == "arm64" {
		machine, code = 183, nil
		for _, word := range []uint32{
			0xd2800000, 0xd2800001, 0xd2800002, 0xd2800003, 0xd2800004, // mov x0…x4, 0
			0xd2800928, // mov x8, ppoll
			0xd4000001, // svc 0
			0x17fffff9, // b to the first
		} {
			code = binary.LittleEndian.AppendUint32(code, word)
		}
	}
	le := binary.LittleEndian
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	b = le.AppendUint16(b, 2) // executable
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, address+headers) // entry
	b = le.AppendUint64(b, 64)              // program headers
	b = le.AppendUint64(b, 0)               // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // to be loaded
	b = le.AppendUint32(b, 5) // readable, executable
	size := uint64(headers + len(code))
	for _, v := range []uint64{0, address, address, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
