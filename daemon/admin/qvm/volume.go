package qvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"cubicle/daemon/admin/client"
)

type volume struct {
	verbosity
	List   volumeList   `cmd:"" aliases:"ls,l" default:"withargs" help:"List the volumes of qubes."`
	Info   volumeInfo   `cmd:"" aliases:"i" help:"Describe a volume."`
	Config volumeConfig `cmd:"" aliases:"c,set,s" help:"Change a volume's setting: rw, revisions_to_keep, ephemeral."`
	Resize volumeResize `cmd:"" aliases:"extend" help:"Make a volume larger."`
	Revert volumeRevert `cmd:"" aliases:"rv,r" help:"Put a volume back to what it was."`
	Import volumeImport `cmd:"" help:"Replace a volume's content by a file."`
}

type volumeList struct {
	Pool    string   `short:"p" placeholder:"POOL" help:"Only volumes in this pool." complete:"pool"`
	Full    bool     `help:"Name the qube in each line, also on a terminal."`
	All     bool     `help:"The volumes of all qubes; so it is anyway."`
	Exclude []string `placeholder:"VMNAME" help:"Not those of this qube. May be given several times." sep:"none" complete:"qube"`
	VMNames []string `arg:"" optional:"" name:"VMNAME" help:"Only these qubes." complete:"qube"`
}

type volumeInfo struct {
	Volume   string `arg:"" name:"VMNAME:VOLUME" help:"The volume." complete:"volume"`
	Property string `arg:"" optional:"" name:"PROPERTY" help:"Only this; revisions lists what the volume can be put back to."`
}

type volumeConfig struct {
	Volume   string `arg:"" name:"VMNAME:VOLUME" help:"The volume." complete:"volume"`
	Property string `arg:"" name:"PROPERTY" enum:"rw,revisions_to_keep,ephemeral" help:"rw, revisions_to_keep or ephemeral."`
	Value    string `arg:"" name:"VALUE" help:"The new value."`
}

type volumeResize struct {
	Force  bool   `short:"f" help:"Also make it smaller, which loses data; where the pool can."`
	Volume string `arg:"" name:"VMNAME:VOLUME" help:"The volume." complete:"volume"`
	Size   string `arg:"" name:"SIZE" help:"Bytes, or with a unit: MiB, GiB, M, G."`
}

type volumeRevert struct {
	Volume   string `arg:"" name:"VMNAME:VOLUME" help:"The volume." complete:"volume"`
	Revision string `arg:"" optional:"" name:"REVISION" help:"A revision (default: the newest)."`
}

type volumeImport struct {
	Size     string `placeholder:"BYTES" help:"Size of the data (default: the file's size)."`
	NoResize bool   `name:"no-resize" help:"Keep the volume's size; the data must be just as long."`
	Volume   string `arg:"" name:"VMNAME:VOLUME" help:"The volume." complete:"volume"`
	File     string `arg:"" name:"FILE" help:"The file; - is standard input." complete:"file"`
}

func (v *volume) run(ctx context.Context, e *env) error { return e.command.(tool).run(ctx, e) }

func (l *volumeList) run(ctx context.Context, e *env) error {
	if l.All && len(l.VMNames) > 0 {
		return usage("--all and VMNAME exclude each other")
	}
	list, err := e.List(ctx)
	if err == nil && len(l.VMNames) > 0 {
		list, err = named(list, l.VMNames)
	}
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(q client.Qube) bool { return slices.Contains(l.Exclude, q.Name) })
	blocks := make([][][]string, len(list))
	err = e.Each(ctx, len(list), func(ctx context.Context, i int) error {
		var err error
		blocks[i], err = l.of(ctx, e, list[i].Name)
		return err
	})
	if err != nil {
		return err
	}
	t := table{head: []string{"POOL:VOLUME", "VMNAME", "VOLUME_NAME", "REVERT_POSSIBLE"}, rows: slices.Concat(blocks...)}
	slices.SortStableFunc(t.rows, func(a, b []string) int { return slices.Compare(a[:3], b[:3]) })
	// On a terminal a name that repeats is left out.
	if isTerminal(e.Out) && !l.Full {
		last := ""
		for _, row := range t.rows {
			if row[1] == last {
				row[1] = ""
			} else {
				last = row[1]
			}
		}
	}
	return t.write(e.Out)
}

// of are the rows of one qube's volumes.
func (l *volumeList) of(ctx context.Context, e *env, vm string) ([][]string, error) {
	names, err := e.Words(ctx, vm, "admin.vm.volume.List", "")
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, name := range names {
		info, err := e.VolumeInfo(ctx, vm, name)
		if err != nil {
			return nil, err
		}
		pool := client.Lookup(info, "pool")
		if l.Pool != "" && pool != l.Pool {
			continue
		}
		revisions, err := e.revisions(ctx, vm, name)
		if err != nil {
			return nil, err
		}
		can := "No"
		if len(revisions) > 0 {
			can = "Yes"
		}
		rows = append(rows, []string{pool + ":" + client.Lookup(info, "vid"), vm, name, can})
	}
	return rows, nil
}

// revisions are what a volume can be put back to, oldest first.
func (e *env) revisions(ctx context.Context, vm, volume string) ([]string, error) {
	list, err := e.Words(ctx, vm, "admin.vm.volume.ListSnapshots", volume)
	if client.Missing(err) {
		return nil, nil
	}
	return list, err
}

// splitVolume reads VMNAME:VOLUME.
func splitVolume(text string) (vm, name string, err error) {
	vm, name, ok := strings.Cut(text, ":")
	if !ok || vm == "" || name == "" || strings.ContainsAny(text, " \x00") {
		return "", "", usage("a volume is VMNAME:VOLUME, not %q", text)
	}
	return vm, name, nil
}

func (i *volumeInfo) run(ctx context.Context, e *env) error {
	vm, name, err := splitVolume(i.Volume)
	if err != nil {
		return err
	}
	info, err := e.VolumeInfo(ctx, vm, name)
	if err != nil {
		return err
	}
	revisions, err := e.revisions(ctx, vm, name)
	if err != nil {
		return err
	}
	switch i.Property {
	case "":
	case "revisions":
		for _, r := range revisions {
			fmt.Fprintln(e.Out, r)
		}
		return nil
	default:
		for _, p := range info {
			if p[0] == i.Property {
				fmt.Fprintln(e.Out, p[1])
				return nil
			}
		}
		return usage("unknown property %s", i.Property)
	}
	slices.SortFunc(info, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	if err := pairs(info).writeWhole(e.Out); err != nil {
		return err
	}
	if len(revisions) == 0 {
		fmt.Fprintln(e.Out, "Revisions to revert to: none")
		return nil
	}
	fmt.Fprintln(e.Out, "Revisions to revert to:")
	for _, r := range revisions {
		fmt.Fprintln(e.Out, "  "+r)
	}
	return nil
}

func (c *volumeConfig) run(ctx context.Context, e *env) error {
	vm, name, err := splitVolume(c.Volume)
	if err != nil {
		return err
	}
	_, err = e.Call(ctx, vm, "admin.vm.volume.Set."+c.Property, name, []byte(c.Value))
	return err
}

func (r *volumeResize) run(ctx context.Context, e *env) error {
	vm, name, err := splitVolume(r.Volume)
	if err != nil {
		return err
	}
	size, err := parseSize(r.Size)
	if err != nil {
		return err
	}
	info, err := e.VolumeInfo(ctx, vm, name)
	if err != nil {
		return err
	}
	now, err := strconv.ParseInt(client.Lookup(info, "size"), 10, 64)
	if err == nil && size < now && !r.Force {
		return fmt.Errorf("%s is larger already (%s); making it smaller loses data, and only --force tries it", r.Volume, sizeText(now))
	}
	_, err = e.Call(ctx, vm, "admin.vm.volume.Resize", name, fmt.Append(nil, size))
	return err
}

func (r *volumeRevert) run(ctx context.Context, e *env) error {
	vm, name, err := splitVolume(r.Volume)
	if err != nil {
		return err
	}
	if r.Revision == "" {
		revisions, err := e.Words(ctx, vm, "admin.vm.volume.ListSnapshots", name)
		if err != nil {
			return err
		}
		if len(revisions) == 0 {
			return fmt.Errorf("%s has no revisions to revert to", r.Volume)
		}
		r.Revision = revisions[len(revisions)-1]
	}
	_, err = e.Call(ctx, vm, "admin.vm.volume.Revert", name, []byte(r.Revision))
	return err
}

func (i *volumeImport) run(ctx context.Context, e *env) error {
	vm, name, err := splitVolume(i.Volume)
	if err != nil {
		return err
	}
	size := int64(-2)
	switch {
	case i.NoResize && i.Size != "":
		return usage("--size and --no-resize exclude each other")
	case i.NoResize:
		size = -1
	case i.Size != "":
		if size, err = parseSize(i.Size); err != nil {
			return err
		}
	}
	if i.File != "-" {
		f, err := os.Open(i.File)
		if err != nil {
			return usage("%w", err)
		}
		defer f.Close()
		return importFile(ctx, e, vm, name, size, f)
	}
	if size == -2 {
		return usage("standard input has no size: say it with --size")
	}
	return e.ImportVolume(ctx, vm, name, size, e.In)
}

var errSize = errors.New("a size is a number of bytes, with a unit such as MiB, GiB, M or G if wished")

// parseSize reads a number of bytes with an optional unit of 1000 (KB, MB, …)
// or 1024 (K, KiB, M, …).
func parseSize(text string) (int64, error) {
	upper := strings.ToUpper(text)
	digits := strings.TrimRight(upper, "KMGTIB ")
	unit := strings.TrimSpace(upper[len(digits):])
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != digits {
		return 0, usage("%q: %w", text, errSize)
	}
	for i, prefix := range []string{"", "K", "M", "G", "T"} {
		factor := int64(0)
		switch {
		case unit == prefix, unit == prefix+"IB" && prefix != "":
			factor = 1 << (10 * i)
		case unit == prefix+"B":
			for factor = 1; i > 0; i-- {
				factor *= 1000
			}
		default:
			continue
		}
		if n > (1<<62)/factor {
			break
		}
		return n * factor, nil
	}
	return 0, usage("%q: %w", text, errSize)
}
