package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"cubicle/daemon/admin/client"
	"cubicle/daemon/paths"
	"cubicle/daemon/qubesxml"
)

type importCmd struct {
	rootFlag
	Apply     bool              `help:"Do it. Without, only tell what would be done."`
	Update    bool              `help:"Bring qubes and settings that are here already in line with the file. Without, they stay as they are."`
	Templates map[string]string `name:"template" placeholder:"OLD=NEW" help:"Template that takes the place of the file's template OLD (default: the one of the same name, else the default template)."`
	File      string            `arg:"" type:"existingfile" help:"The qubes.xml of a Qubes OS. Firewalls and notes are taken from the folders of the qubes beside it, where there are some."`
}

func (c *importCmd) Run(ctx context.Context) error {
	root, err := paths.New(c.Root)
	if err != nil {
		return err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer f.Close()
	want, notes, err := qubesxml.Read(f)
	if err != nil {
		return err
	}
	api := client.New(root)
	have, err := qubesxml.Take(ctx, api)
	if err != nil {
		return err
	}
	plan := qubesxml.NewPlan(want, have, qubesxml.PlanOptions{Update: c.Update, Templates: c.Templates, Beside: os.DirFS(filepath.Dir(c.File))})
	out := bufio.NewWriter(os.Stdout)
	tell(out, "Written by an older version, and read as what it means today:", notes)
	tell(out, "Not brought over, or not as it is:", plan.Notes)
	if !c.Apply {
		tell(out, "Would be done (--apply does it):", texts(plan.Steps))
	}
	if len(plan.Steps) == 0 {
		fmt.Fprintln(out, "There is nothing to do.")
	}
	if err := out.Flush(); err != nil || !c.Apply {
		return err
	}
	failed, err := plan.Carry(ctx, api, func(s qubesxml.Step, err error) {
		if err != nil {
			fmt.Printf("failed: %s: %v\n", s.Text, err)
			return
		}
		fmt.Println("done:   " + s.Text)
	})
	if err == nil && failed > 0 {
		err = fmt.Errorf("import %s: %d of %d steps failed", c.File, failed, len(plan.Steps))
	}
	return err
}

func texts(steps []qubesxml.Step) []string {
	list := make([]string, len(steps))
	for i, s := range steps {
		list[i] = s.Text
	}
	return list
}

// tell prints a list below a title, or nothing.
func tell[T any](w io.Writer, title string, list []T) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(w, title)
	for _, v := range list {
		fmt.Fprintf(w, "  %v\n", v)
	}
	fmt.Fprintln(w)
}

type exportCmd struct {
	rootFlag
	File string `arg:"" optional:"" type:"path" help:"File to write (default: standard output)."`
}

func (c *exportCmd) Run(ctx context.Context) (err error) {
	root, err := paths.New(c.Root)
	if err != nil {
		return err
	}
	d, err := qubesxml.Take(ctx, client.New(root))
	if err != nil {
		return err
	}
	if c.File == "" {
		return d.Write(os.Stdout)
	}
	// Only a whole file gets the name.
	f, err := os.CreateTemp(filepath.Dir(c.File), ".qubes.xml-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	for _, step := range []func() error{
		func() error { return d.Write(f) }, f.Sync, f.Close,
		func() error { return os.Rename(f.Name(), c.File) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
