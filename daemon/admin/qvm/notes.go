package qvm

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

type notes struct {
	verbosity
	Force  bool    `short:"f" help:"Do not ask."`
	Edit   bool    `short:"e" help:"Open the notes in an editor; so it is anyway." xor:"act"`
	Print  bool    `short:"p" help:"Print the notes." xor:"act"`
	Import string  `short:"i" placeholder:"FILE" help:"Replace the notes by a file; - is standard input." xor:"act" complete:"file"`
	Set    *string `short:"s" placeholder:"NOTES" help:"Replace the notes by this text." xor:"act"`
	Append *string `placeholder:"NOTES" help:"Add this text at the end." xor:"act"`
	Delete bool    `short:"d" help:"Delete the notes." xor:"act"`
	VMName string  `arg:"" name:"VMNAME" help:"Name of the qube." complete:"qube"`
}

// maxNotes is the size limit of notes in bytes.
const maxNotes = 256000

func (n *notes) run(ctx context.Context, e *env) error {
	if _, err := e.one(ctx, n.VMName); err != nil {
		return err
	}
	if n.Set != nil || n.Delete {
		text := ""
		if n.Set != nil {
			text = *n.Set
		}
		return n.replace(ctx, e, text)
	}
	if n.Import != "" {
		text, err := n.read(e)
		if err != nil {
			return err
		}
		return n.replace(ctx, e, text)
	}
	old, err := e.Call(ctx, n.VMName, "admin.vm.notes.Get", "", nil)
	if err != nil {
		return err
	}
	switch {
	case n.Print:
		if old != "" {
			fmt.Fprintln(e.Out, strings.TrimSuffix(printable(old), "\n"))
		}
		return nil
	case n.Append != nil:
		if old != "" && !strings.HasSuffix(old, "\n") {
			old += "\n"
		}
		return n.store(ctx, e, old+*n.Append)
	}
	text, err := edit(ctx, e, "qvm-notes-*.txt", old)
	if err != nil || text == old {
		return err
	}
	return n.store(ctx, e, text)
}

// printable lets a text of several lines steer no terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0) {
			return '_'
		}
		return r
	}, text)
}

func (n *notes) read(e *env) (string, error) {
	from := e.In
	if n.Import != "-" {
		f, err := os.Open(n.Import)
		if err != nil {
			return "", usage("%w", err)
		}
		defer f.Close()
		from = f
	}
	raw, err := io.ReadAll(io.LimitReader(from, maxNotes+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", n.Import, err)
	}
	return string(raw), nil
}

// replace replaces notes that are lost by it, and asks before.
func (n *notes) replace(ctx context.Context, e *env, text string) error {
	if !n.Force && isTerminal(e.In) {
		old, err := e.Call(ctx, n.VMName, "admin.vm.notes.Get", "", nil)
		if err != nil {
			return err
		}
		if old != "" && !e.confirm("The notes of "+n.VMName+" will be lost. Are you sure?") {
			return &Failure{1, fmt.Errorf("nothing was changed")}
		}
	}
	return n.store(ctx, e, text)
}

func (n *notes) store(ctx context.Context, e *env, text string) error {
	if len(text) > maxNotes {
		return fmt.Errorf("notes have at most %d bytes", maxNotes)
	}
	// A call without a payload is none for this method: a line's end is what
	// empty notes are.
	if text == "" {
		text = "\n"
	}
	_, err := e.Call(ctx, n.VMName, "admin.vm.notes.Set", "", []byte(text))
	return err
}

// edit lets people change a text in their editor, as a file with a name of
// that pattern.
func edit(ctx context.Context, e *env, pattern, text string) (string, error) {
	editor := os.Getenv("VISUAL")
	if editor == "" {
		editor = os.Getenv("EDITOR")
	}
	if editor == "" {
		editor = "editor"
	}
	f, err := os.CreateTemp("", pattern)
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	// The variable may have arguments, as everywhere.
	c := exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "sh", f.Name())
	c.Stdin, c.Stdout, c.Stderr = e.In, e.Out, e.Err
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("editor %s: %w", editor, err)
	}
	raw, err := os.ReadFile(f.Name())
	return string(raw), err
}
