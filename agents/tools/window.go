package tools

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"cubicle/agents/qrexec/vmclient"
)

// dialogs are programs that show a text; status 0 of a question is yes.
var dialogs = []struct {
	program  string
	question func(text string) []string
	message  func(text string) []string
}{
	{"zenity",
		func(t string) []string { return []string{"--question", "--no-markup", "--default-cancel", "--text", t} },
		func(t string) []string { return []string{"--error", "--no-markup", "--text", t} }},
	{"kdialog",
		func(t string) []string { return []string{"--yesno", t} },
		func(t string) []string { return []string{"--error", t} }},
	{"xmessage",
		func(t string) []string {
			return []string{"-center", "-buttons", "Open:0,Cancel:1", "-default", "Cancel", t}
		},
		func(t string) []string { return []string{"-center", t} }},
}

// confirm asks before what another qube has sent starts one more disposable.
// Where nobody can be asked, it is not opened.
func confirm(ctx context.Context, source, what string) error {
	text := fmt.Sprintf("%s has asked to open %q here. Open it in another disposable qube?", source, what)
	for _, d := range dialogs {
		path, err := exec.LookPath(d.program)
		if err != nil {
			continue
		}
		if err := exec.CommandContext(ctx, path, d.question(text)...).Run(); err != nil {
			return fmt.Errorf("%q is not opened: %s said no (%w)", what, d.program, err)
		}
		return nil
	}
	return fmt.Errorf("%q is not opened: nobody can be asked whether another disposable may start", what)
}

// inWindow is for tools that a file manager starts.
type inWindow struct {
	Gui bool `help:"Show in a window what goes wrong."`
}

// told shows err in a window where that is wanted, and returns it. A refusal
// has been shown by dom0.
func (i inWindow) told(ctx context.Context, err error) error {
	if !i.Gui || err == nil || ctx.Err() != nil || errors.Is(err, vmclient.ErrRefused) {
		return err
	}
	for _, d := range dialogs {
		if path, lerr := exec.LookPath(d.program); lerr == nil {
			return errors.Join(err, exec.CommandContext(ctx, path, d.message(err.Error())...).Run())
		}
	}
	return err
}
