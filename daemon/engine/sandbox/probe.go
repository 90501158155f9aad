package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

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
	dir, err := os.MkdirTemp(e.options.Root.Run(), "probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root, err := paths.New(dir)
	if err != nil {
		return err
	}
	options := e.options
	options.Root, options.Command = root, nil
	trial, err := New(options)
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
	defer func() { err = errors.Join(err, trial.Release(context.WithoutCancel(ctx), m.UUID)) }()
	if err := trial.Start(ctx, m.UUID); err != nil {
		return err
	}
	return trial.Kill(ctx, m.UUID)
}

func smallImage(ctx context.Context, path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(path, 8<<20); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", path).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return unusable("mke2fs is not installed: apt-get install e2fsprogs")
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
