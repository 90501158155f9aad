package qvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// settings is qubes-vm-settings.
type settings struct {
	verbosity
	VMName string `arg:"" name:"VMNAME" help:"Name of the qube." complete:"qube"`
}

func (s *settings) run(ctx context.Context, e *env) error {
	q, err := e.one(ctx, s.VMName)
	if err != nil {
		return err
	}
	if q.IsAdmin() {
		return usage("%s has no settings of a qube; see qubes-prefs", q.Name)
	}
	program, err := beside("qube-manager")
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, program, "--settings", q.Name)
	c.Stdin, c.Stdout, c.Stderr = e.In, e.Out, e.Err
	err = c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return &Failure{Status: exit.ExitCode()} // it has said why
	}
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	return nil
}

// beside finds one of our programs: in the folder of this one, else in PATH.
func beside(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if st, err := os.Stat(path); err == nil && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is not installed: %w", name, err)
	}
	return path, nil
}
