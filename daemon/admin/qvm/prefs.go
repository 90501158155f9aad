package qvm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cubicle/daemon/admin/client"
)

// propertyOptions are those of qvm-prefs and qubes-prefs.
type propertyOptions struct {
	verbosity
	HelpProperties bool `name:"help-properties" help:"Say what the properties mean."`
	HideDefault    bool `name:"hide-default" help:"Only what was set explicitly."`
	Get            bool `short:"g" hidden:""`
	Set            bool `short:"s" hidden:""`
	Default        bool `short:"D" aliases:"delete,unset" help:"Put the property back to its default." xor:"act"`
}

type prefs struct {
	propertyOptions
	VMName   string  `arg:"" name:"VMNAME" help:"Name of the qube."`
	Property string  `arg:"" optional:"" name:"PROPERTY" help:"The property; none: all."`
	Value    *string `arg:"" optional:"" name:"VALUE" help:"Its new value."`
}

func (p *prefs) run(ctx context.Context, e *env) error {
	if _, err := e.one(ctx, p.VMName); err != nil {
		return err
	}
	return p.act(ctx, e, p.VMName, p.Property, p.Value)
}

type systemPrefs struct {
	propertyOptions
	Property string  `arg:"" optional:"" name:"PROPERTY" help:"The property; none: all."`
	Value    *string `arg:"" optional:"" name:"VALUE" help:"Its new value."`
}

func (p *systemPrefs) run(ctx context.Context, e *env) error {
	return p.act(ctx, e, "", p.Property, p.Value)
}

func (o *propertyOptions) act(ctx context.Context, e *env, dest, name string, value *string) error {
	switch {
	case o.HelpProperties:
		return o.help(ctx, e, dest)
	case name == "":
		return o.list(ctx, e, dest)
	case o.Default && value != nil:
		return usage("a VALUE cannot be given together with --default")
	case o.Default:
		return e.ResetProperty(ctx, dest, name)
	case value != nil:
		return set(ctx, e, dest, name, *value)
	}
	p, err := e.Property(ctx, dest, name)
	if err != nil {
		return err
	}
	if p.Type != "vm" || p.Value != "" {
		fmt.Fprintln(e.Out, p.Value)
	}
	return nil
}

// set sets a property; "none" means no qube.
func set(ctx context.Context, e *env, dest, name, value string) error {
	if strings.EqualFold(value, "none") {
		p, err := e.Property(ctx, dest, name)
		if err != nil {
			return err
		}
		if p.Type == "vm" {
			value = ""
		}
	}
	return e.SetProperty(ctx, dest, name, value)
}

func (o *propertyOptions) list(ctx context.Context, e *env, dest string) error {
	props, err := e.Properties(ctx, dest)
	if err != nil {
		return err
	}
	width := 0
	for name := range props {
		width = max(width, len(name))
	}
	for _, name := range slices.Sorted(maps.Keys(props)) {
		p := props[name]
		if o.HideDefault && p.Default {
			continue
		}
		mark, value := "-", p.Value
		if p.Default {
			mark = "D"
		}
		if p.Type == "vm" && value == "" {
			value = "None"
		}
		fmt.Fprintf(e.Out, "%-*s  %s  %s\n", width, name, mark, value)
	}
	return nil
}

func (o *propertyOptions) help(ctx context.Context, e *env, dest string) error {
	props, err := e.Properties(ctx, dest)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(props)) {
		text, err := e.PropertyHelp(ctx, dest, name)
		if err != nil {
			return err
		}
		rows = append(rows, []string{name, props[name].Type, text})
	}
	writeTable(e, rows)
	return nil
}

type tags struct {
	verbosity
	VMName string   `arg:"" name:"VMNAME" help:"Name of the qube."`
	Action string   `arg:"" optional:"" enum:"list,ls,l,add,a,set,del,d,unset,u," default:"list" help:"list, add or del."`
	Names  []string `arg:"" optional:"" name:"TAG" help:"The tags."`
}

func (t *tags) run(ctx context.Context, e *env) error {
	if _, err := e.one(ctx, t.VMName); err != nil {
		return err
	}
	method := "admin.vm.tag.Set"
	switch t.Action {
	case "list", "ls", "l", "":
		return t.list(ctx, e)
	case "del", "d", "unset", "u":
		method = "admin.vm.tag.Remove"
	}
	if len(t.Names) == 0 {
		return usage("a TAG is needed")
	}
	for _, name := range t.Names {
		if _, err := e.Call(ctx, t.VMName, method, name, nil); err != nil {
			return err
		}
	}
	return nil
}

func (t *tags) list(ctx context.Context, e *env) error {
	text, err := e.Call(ctx, t.VMName, "admin.vm.tag.List", "", nil)
	if err != nil {
		return err
	}
	all := strings.Fields(text)
	if len(t.Names) == 0 {
		fmt.Fprint(e.Out, text)
		return nil
	}
	for _, n := range t.Names {
		if !slices.Contains(all, n) {
			return &Failure{Status: 1}
		}
		fmt.Fprintln(e.Out, n)
	}
	return nil
}

type features struct {
	verbosity
	Unset   bool    `short:"D" aliases:"default,delete" help:"Unset the feature."`
	VMName  string  `arg:"" name:"VMNAME" help:"Name of the qube."`
	Feature string  `arg:"" optional:"" name:"FEATURE" help:"The feature; none: all."`
	Value   *string `arg:"" optional:"" name:"VALUE" help:"Its new value."`
}

func (f *features) run(ctx context.Context, e *env) error {
	if _, err := e.one(ctx, f.VMName); err != nil {
		return err
	}
	switch {
	case f.Feature == "":
		return f.list(ctx, e)
	case f.Unset:
		_, err := e.Call(ctx, f.VMName, "admin.vm.feature.Remove", f.Feature, nil)
		return err
	case f.Value != nil:
		_, err := e.Call(ctx, f.VMName, "admin.vm.feature.Set", f.Feature, []byte(*f.Value))
		return err
	}
	value, err := e.Call(ctx, f.VMName, "admin.vm.feature.Get", f.Feature, nil)
	if client.Is(err, "QubesFeatureNotFoundError") {
		return &Failure{Status: 1}
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(e.Out, value)
	return nil
}

func (f *features) list(ctx context.Context, e *env) error {
	text, err := e.Call(ctx, f.VMName, "admin.vm.feature.List", "", nil)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, name := range strings.Fields(text) {
		value, err := e.Call(ctx, f.VMName, "admin.vm.feature.Get", name, nil)
		if err != nil {
			return err
		}
		rows = append(rows, []string{name, value})
	}
	writeTable(e, rows)
	return nil
}

type volume struct {
	verbosity
	List   volumeList   `cmd:"" aliases:"ls,l" help:"List the volumes of qubes."`
	Info   volumeInfo   `cmd:"" aliases:"i" help:"Describe a volume."`
	Resize volumeResize `cmd:"" aliases:"extend" help:"Make a volume larger."`
	picked tool
}

type volumeList struct {
	VMNames []string `arg:"" optional:"" name:"VMNAME" help:"Only these qubes."`
}

type volumeInfo struct {
	Volume   string `arg:"" name:"VMNAME:VOLUME" help:"The volume."`
	Property string `arg:"" optional:"" name:"PROPERTY" help:"Only this."`
}

type volumeResize struct {
	Volume string `arg:"" name:"VMNAME:VOLUME" help:"The volume."`
	Size   string `arg:"" name:"SIZE" help:"Bytes, or with a unit: MiB, GiB, M, G."`
}

// AfterApply notes which of the three was asked for.
func (l *volumeList) AfterApply(v *volume) error   { v.picked = l; return nil }
func (i *volumeInfo) AfterApply(v *volume) error   { v.picked = i; return nil }
func (r *volumeResize) AfterApply(v *volume) error { v.picked = r; return nil }

func (v *volume) run(ctx context.Context, e *env) error { return v.picked.run(ctx, e) }

func (l *volumeList) run(ctx context.Context, e *env) error {
	list, err := e.List(ctx)
	if err == nil && len(l.VMNames) > 0 {
		list, err = named(list, l.VMNames)
	}
	if err != nil {
		return err
	}
	rows := [][]string{{"POOL:VOLUME", "VMNAME", "VOLUME_NAME"}}
	for _, q := range list {
		text, err := e.Call(ctx, q.Name, "admin.vm.volume.List", "", nil)
		if err != nil {
			return err
		}
		for _, name := range strings.Fields(text) {
			info, err := e.volume(ctx, q.Name, name)
			if err != nil {
				return err
			}
			rows = append(rows, []string{info["pool"] + ":" + info["vid"], q.Name, name})
		}
	}
	writeTable(e, rows)
	return nil
}

func (e *env) volume(ctx context.Context, vm, name string) (map[string]string, error) {
	text, err := e.Call(ctx, vm, "admin.vm.volume.Info", name, nil)
	if err != nil {
		return nil, err
	}
	info := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		info[key] = value
	}
	return info, nil
}

func splitVolume(text string) (vm, name string, err error) {
	vm, name, ok := strings.Cut(text, ":")
	if !ok {
		return "", "", usage("a volume is VMNAME:VOLUME, not %q", text)
	}
	return vm, name, nil
}

func (i *volumeInfo) run(ctx context.Context, e *env) error {
	vm, name, err := splitVolume(i.Volume)
	if err != nil {
		return err
	}
	info, err := e.volume(ctx, vm, name)
	if err != nil {
		return err
	}
	if i.Property != "" {
		value, ok := info[i.Property]
		if !ok {
			return usage("unknown property %s", i.Property)
		}
		fmt.Fprintln(e.Out, value)
		return nil
	}
	var rows [][]string
	for _, key := range slices.Sorted(maps.Keys(info)) {
		rows = append(rows, []string{key, info[key]})
	}
	writeTable(e, rows)
	return nil
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
	_, err = e.Call(ctx, vm, "admin.vm.volume.Resize", name, fmt.Append(nil, size))
	return err
}

// parseSize reads a number of bytes with an optional unit of 1000 (KB, MB, …)
// or 1024 (K, KiB, M, …).
func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(strings.ToUpper(text), "KMGTIB ")
	unit := strings.TrimSpace(strings.ToUpper(text)[len(digits):])
	var n int64
	if _, err := fmt.Sscanf(digits+"\n", "%d\n", &n); err != nil || n < 0 || fmt.Sprint(n) != digits {
		return 0, usage("invalid size: %q", text)
	}
	for i, prefix := range []string{"", "K", "M", "G", "T"} {
		factor := int64(0)
		switch unit {
		case prefix + "IB", prefix:
			factor = 1 << (10 * i)
		case prefix + "B":
			for factor = 1; i > 0; i-- {
				factor *= 1000
			}
		default:
			continue
		}
		if n > (1<<62)/factor {
			return 0, usage("invalid size: %q", text)
		}
		return n * factor, nil
	}
	return 0, usage("invalid size: %q", text)
}
