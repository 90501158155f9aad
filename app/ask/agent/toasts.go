package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os/exec"
	"sync"
)

// ToToasts is what the process of the toasts reads, a JSON value a line: a
// notice, in the place of the one with its number.
type ToToasts struct {
	ID uint32
	Notice
}

// Toasts shows notices in a window of our own, where the desktop has no
// notification daemon. Their process runs while there are some. It writes a
// line whenever somebody presses their button: what the notice is about.
type Toasts struct {
	// Command makes the process; its standard input and output are set.
	Command func() *exec.Cmd
	Pressed func(about string)
	Log     *slog.Logger

	mu   sync.Mutex // guards what follows
	in   io.WriteCloser
	last uint32
}

// ownNumbers begin where no notification daemon's numbers are.
const ownNumbers = 1 << 31

// Show is Notices' Show.
func (t *Toasts) Show(_ context.Context, n Notice, replaces uint32) (uint32, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if replaces < ownNumbers {
		t.last++
		replaces = ownNumbers + t.last%ownNumbers
	}
	line, err := json.Marshal(ToToasts{replaces, n})
	if err != nil {
		return 0, err
	}
	line = append(line, '\n')
	if t.in != nil {
		if _, err := t.in.Write(line); err == nil {
			return replaces, nil
		}
		t.in.Close() // it has ended, as it does when it has nothing to show
		t.in = nil
	}
	if err := t.start(); err != nil {
		return 0, err
	}
	_, err = t.in.Write(line)
	return replaces, err
}

func (t *Toasts) start() error {
	cmd := t.Command()
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	t.in = in
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			t.Pressed(lines.Text())
		}
		if err := cmd.Wait(); err != nil {
			t.Log.Warn("the process of the notices has failed", "error", err)
		}
	}()
	return nil
}

// Close ends the process.
func (t *Toasts) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.in != nil {
		t.in.Close()
	}
}
