package qvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"cubicle/daemon/admin/client"
	nouns "cubicle/daemon/device"
	qrexec "cubicle/daemon/qrexec/client"
	"cubicle/daemon/qrexec/wire"
)

// drives are qvm-start's options for a drive that a qube has in one run.
type drives struct {
	Drive        string `placeholder:"DRIVE" xor:"drive" help:"A drive for this run: BACKEND:DEVICE, or BACKEND:FILE of which a drive is made, with cdrom: (so it is without) or hd: before it."`
	HDDisk       string `name:"hddisk" placeholder:"DRIVE" xor:"drive" help:"The same, as a hard disk."`
	CDROM        string `name:"cdrom" placeholder:"DRIVE" xor:"drive" help:"The same, as a CD."`
	WindowsTools bool   `name:"install-windows-tools" xor:"drive" hidden:""`
}

// drive is one of them.
type drive struct {
	backend, what string // what is a device or, from the root, a file
	disk          bool   // else a CD
}

// chosen returns the drive, if one is wished.
func (d drives) chosen() (drive, bool, error) {
	text, disk := d.Drive, false
	switch {
	case d.HDDisk != "":
		text, disk = d.HDDisk, true
	case d.CDROM != "":
		text = d.CDROM
	case d.WindowsTools:
		text = "dom0:/usr/lib/qubes/qubes-windows-tools.iso"
	case text == "":
		return drive{}, false, nil
	default:
		rest, ok := strings.CutPrefix(text, "hd:")
		text, disk = strings.TrimPrefix(rest, "cdrom:"), ok
	}
	backend, what, ok := strings.Cut(text, ":")
	if !ok || backend == "" || what == "" {
		return drive{}, false, usage("a drive is BACKEND:DEVICE or BACKEND:FILE, not %q", text)
	}
	return drive{backend, strings.TrimPrefix(what, "/dev/"), disk}, true, nil
}

// assignment is how a qube gets the drive. undo takes back what was made for
// it, when it is not to be used.
func (d drive) assignment(ctx context.Context, e *env) (a nouns.Assignment, undo func(), err error) {
	backend, err := e.one(ctx, d.backend)
	if err != nil {
		return a, nil, err
	}
	port, undo := d.what, func() {}
	if strings.HasPrefix(port, "/") {
		if port, err = d.loop(ctx, e, backend); err != nil {
			return a, nil, fmt.Errorf("make a drive of %s in %s: %w", d.what, d.backend, err)
		}
		undo = func() {
			// The failure that it follows is what is told.
			_, _ = losetup(context.WithoutCancel(ctx), e, backend, "-d", "/dev/"+port)
		}
	}
	a = nouns.Assignment{Device: nouns.Device{Class: nouns.Block, Backend: d.backend, Port: port, ID: nouns.Any}, Mode: nouns.Required,
		Options: map[string]string{"devtype": "cdrom", "read-only": "yes"}}
	if d.disk {
		a.Options = map[string]string{"devtype": "disk", "read-only": "no"}
	}
	if err := nouns.CheckPort(nouns.Block, port); err != nil {
		undo()
		return a, nil, usage("%w", err)
	}
	return a, undo, nil
}

var loopDevice = regexp.MustCompile(`^/dev/(loop[0-9]{1,4})\n?$`)

// loop makes a loop device of a file in its qube, and returns its name.
func (d drive) loop(ctx context.Context, e *env, backend client.Qube) (string, error) {
	args := []string{"-f", "--show"}
	if !d.disk {
		args = append(args, "-r")
	}
	out, err := losetup(ctx, e, backend, append(args, "--", d.what)...)
	if err != nil {
		return "", err
	}
	m := loopDevice.FindStringSubmatch(out)
	if m == nil {
		return "", errors.New("losetup tells of no loop device")
	}
	return m[1], nil
}

// maxSaid bounds what is read of a qube's losetup.
const maxSaid = 4096

// losetup runs it in dom0, or as root in a qube.
func losetup(ctx context.Context, e *env, backend client.Qube, args ...string) (string, error) {
	if backend.IsAdmin() {
		cmd := exec.CommandContext(ctx, "losetup", args...)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("%w: %s", err, oneLine(strings.TrimSpace(said.String())))
		}
		return string(out), nil
	}
	out := &clipped{limit: maxSaid}
	status, err := qrexec.Run(ctx, qrexec.Call{Root: e.root, Target: backend.Name, Stdout: out,
		Command: qrexec.Service("root", "qubes.VMExec+"+wire.EncodeArgs(slices.Insert(args, 0, "losetup")))})
	if err == nil && status != 0 {
		err = fmt.Errorf("losetup ended with status %d", status)
	}
	return out.text.String(), err
}

// clipped keeps the beginning of what is written to it.
type clipped struct {
	text  strings.Builder
	limit int
}

func (c *clipped) Write(p []byte) (int, error) {
	c.text.Write(p[:min(len(p), c.limit-c.text.Len())])
	return len(p), nil
}

// startWith starts a qube that has the drive in this run only.
func (e *env) startWith(ctx context.Context, vm string, d drive) error {
	a, undo, err := d.assignment(ctx, e)
	if err != nil {
		return err
	}
	if err := e.Assign(ctx, vm, a); err != nil {
		undo()
		return err
	}
	_, err = e.Call(ctx, vm, "admin.vm.Start", "", nil)
	if err != nil {
		defer undo()
	}
	return errors.Join(err, e.Unassign(context.WithoutCancel(ctx), vm, a.Device))
}
