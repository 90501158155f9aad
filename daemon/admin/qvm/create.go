package qvm

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"cubicle/daemon/admin/client"
)

// pools chooses storage pools for new volumes.
type pools struct {
	Volume []string `name:"pool" short:"p" placeholder:"VOLUME=POOL" sep:"none" help:"Pool of a volume. May be given several times."`
	One    string   `name:"pool-of-all" short:"P" placeholder:"POOL" help:"Pool of all volumes that keep their data." complete:"pool"`
}

// params are the pools as parameters of admin.vm.CreateInPool.
func (p *pools) params() (string, error) {
	if p.One != "" && len(p.Volume) > 0 {
		return "", usage("-P and --pool exclude each other")
	}
	if p.One != "" {
		return " pool=" + p.One, nil
	}
	text := ""
	for _, v := range p.Volume {
		volume, pool, ok := strings.Cut(v, "=")
		if !ok { // the older order
			pool, volume, ok = strings.Cut(v, ":")
		}
		if !ok || volume == "" || pool == "" || strings.ContainsAny(v, " \n") {
			return "", usage("--pool: %q is not VOLUME=POOL", v)
		}
		text += " pool:" + volume + "=" + pool
	}
	return text, nil
}

// create creates an empty qube.
func (e *env) create(ctx context.Context, class, template, name, label, pools string) error {
	if strings.ContainsAny(name+label, " \n\x00") {
		return usage("%q and %q must not have spaces", name, label)
	}
	method := "admin.vm.Create."
	if pools != "" {
		method = "admin.vm.CreateInPool."
	}
	_, err := e.Call(ctx, "dom0", method+class, template, []byte("name="+name+" label="+label+pools))
	return err
}

type create struct {
	verbosity
	pools
	Class      string   `short:"C" default:"AppVM" placeholder:"CLASS" help:"Class of the qube (default: ${default})." complete:"class"`
	Standalone bool     `help:"Short for --class StandaloneVM." xor:"class"`
	Disp       bool     `help:"Short for --class DispVM." xor:"class"`
	Property   []string `name:"property" aliases:"prop" placeholder:"NAME=VALUE" sep:"none" help:"Set a property. May be given several times." complete:"assignment"`
	Template   string   `short:"t" placeholder:"TEMPLATE" help:"Template (default: the system's)." complete:"template"`
	Label      string   `short:"l" placeholder:"LABEL" help:"Colour label." complete:"label"`
	CopyRoot   string   `name:"root-copy-from" short:"r" placeholder:"FILE" help:"Content of the root volume; the file is copied." xor:"root" complete:"file"`
	MoveRoot   string   `name:"root-move-from" short:"R" placeholder:"FILE" help:"Content of the root volume; the file is removed afterwards." xor:"root" complete:"file"`
	HelpClass  bool     `name:"help-classes" help:"Say which classes there are."`
	VMName     string   `arg:"" optional:"" name:"VMNAME" help:"Name of the new qube."`
}

func (c *create) run(ctx context.Context, e *env) error {
	if c.HelpClass {
		classes, err := e.Words(ctx, "dom0", "admin.vmclass.List", "")
		if err != nil {
			return err
		}
		slices.Sort(classes)
		fmt.Fprintln(e.Out, strings.Join(classes, "\n"))
		return nil
	}
	set, err := c.settle()
	if err != nil {
		return err
	}
	pools, err := c.params()
	if err != nil {
		return err
	}
	image, err := c.image()
	if err != nil {
		return err
	}
	if image != nil {
		defer image.Close()
	}
	return e.working(ctx, []string{c.VMName}, func() error {
		if c.Class == "StandaloneVM" && c.Template != "" && image == nil {
			copying := &copier{env: e, from: c.Template, to: c.VMName, class: c.Class, label: c.Label, pools: pools}
			if err := copying.all(ctx); err != nil {
				return fmt.Errorf("error creating qube: %w", err)
			}
		} else {
			template := c.Template
			if c.Class == "StandaloneVM" || c.Class == "TemplateVM" {
				template = ""
			}
			if err := e.create(ctx, c.Class, template, c.VMName, c.Label, pools); err != nil {
				return fmt.Errorf("error creating qube: %w", err)
			}
		}
		if err := c.finish(ctx, e, set, image); err != nil {
			return fmt.Errorf("%w (the qube was created)", err)
		}
		return nil
	})
}

// settle brings the ways to say the same together, and returns the properties
// to set afterwards.
func (c *create) settle() ([][2]string, error) {
	var set [][2]string
	for _, p := range c.Property {
		name, value, ok := strings.Cut(p, "=")
		switch {
		case !ok:
			return nil, usage("--property: %q is not NAME=VALUE", p)
		case name == "label":
			c.Label = value
		case name == "template":
			c.Template = value
		case name == "name":
			c.VMName = value
		default:
			set = append(set, [2]string{name, value})
		}
	}
	if c.Standalone {
		c.Class = "StandaloneVM"
	}
	if c.Disp {
		c.Class = "DispVM"
	}
	switch {
	case c.VMName == "":
		return nil, usage("VMNAME is needed")
	case c.Label == "":
		return nil, usage("--label option is mandatory")
	case c.CopyRoot+c.MoveRoot != "" && c.Class != "StandaloneVM" && c.Class != "TemplateVM":
		return nil, usage("the root volume of a qube of class %s is its template's", c.Class)
	}
	return set, nil
}

// image opens the file for the root volume before anything is created; nil
// when there is none.
func (c *create) image() (*os.File, error) {
	path := c.CopyRoot + c.MoveRoot
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, usage("%w", err)
	}
	return f, nil
}

func (c *create) finish(ctx context.Context, e *env, set [][2]string, image *os.File) error {
	for _, p := range set {
		if err := e.setProperty(ctx, c.VMName, p[0], p[1]); err != nil {
			return fmt.Errorf("error setting property %s: %w", p[0], err)
		}
	}
	if image == nil {
		return nil
	}
	if err := importFile(ctx, e, c.VMName, "root", -2, image); err != nil {
		return fmt.Errorf("error importing the root volume: %w", err)
	}
	if c.MoveRoot != "" {
		return os.Remove(c.MoveRoot)
	}
	return nil
}

// importFile imports a file into a volume; a size of -2 is the file's own.
func importFile(ctx context.Context, e *env, vm, volume string, size int64, f *os.File) error {
	if size == -2 {
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%s has no size: say it with --size", f.Name())
		}
		size = st.Size()
	}
	return e.ImportVolume(ctx, vm, volume, size, f)
}

type clone struct {
	verbosity
	pools
	Class        string `short:"C" placeholder:"CLASS" help:"Class of the copy (default: that of the original)." complete:"class"`
	IgnoreErrors bool   `name:"ignore-errors" help:"Go on when something else than data cannot be copied."`
	Source       string `arg:"" name:"VMNAME" help:"The qube to copy." complete:"qube"`
	Name         string `arg:"" name:"NEWVM" help:"Name of the copy."`
}

func (c *clone) run(ctx context.Context, e *env) error {
	pools, err := c.params()
	if err != nil {
		return err
	}
	if _, err := e.one(ctx, c.Source); err != nil {
		return err
	}
	copying := &copier{env: e, from: c.Source, to: c.Name, class: c.Class, pools: pools, lenient: c.IgnoreErrors}
	return e.working(ctx, []string{c.Name, c.Source}, func() error {
		if c.Class == "" && pools == "" {
			// Our own qubesd does it in one job: whole or not at all.
			_, err := e.Call(ctx, c.Source, "cubicle.vm.Clone", c.Name, nil)
			if err == nil || !client.Missing(err) {
				return err
			}
		}
		return copying.all(ctx)
	})
}

// copier copies a qube by upstream's calls (spec/admin-api.md §14).
type copier struct {
	*env
	from, to     string
	class, label string // empty: as the original
	pools        string
	lenient      bool
}

// all copies everything. After an error the copy is removed again.
func (c *copier) all(ctx context.Context) (err error) {
	source, err := c.one(ctx, c.from)
	if err != nil {
		return err
	}
	props, err := c.Properties(ctx, c.from)
	if err != nil {
		return err
	}
	if c.class == "" {
		c.class = source.Class
	}
	if c.label == "" {
		c.label = props["label"].Value
	}
	volumes, err := c.volumes(ctx)
	if err != nil {
		return err
	}
	template := ""
	if c.class == "AppVM" || c.class == "DispVM" {
		template = props["template"].Value
	}
	if err := c.create(ctx, c.class, template, c.to, c.label, c.pools); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		// What was asked for failed; that it cannot be undone is told as well.
		if _, rerr := c.Call(context.WithoutCancel(ctx), c.to, "admin.vm.Remove", "", nil); rerr != nil {
			err = fmt.Errorf("%w (and %s could not be removed again: %w)", err, c.to, rerr)
		}
	}()
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"properties", func(ctx context.Context) error { return c.properties(ctx, props) }},
		{"tags", c.tags}, {"features", c.features}, {"notes", c.notes}, {"firewall", c.firewall}, {"devices", c.devices},
	} {
		err := step.do(ctx)
		if client.Missing(err) {
			continue // a qubesd without that part has nothing of it to copy
		}
		if err != nil {
			if !c.lenient || ctx.Err() != nil {
				return fmt.Errorf("copy the %s: %w", step.what, err)
			}
			c.say("%s: the %s were not copied: %v", c.prog, step.what, err)
		}
	}
	for _, v := range volumes {
		if err := c.CloneVolume(ctx, c.from, c.to, v); err != nil {
			return fmt.Errorf("copy the volume %s: %w", v, err)
		}
	}
	return nil
}

// volumes are the original's volumes that keep their data; where they lie in
// another pool than new ones would, so does the copy.
func (c *copier) volumes(ctx context.Context) ([]string, error) {
	all, err := c.Words(ctx, c.from, "admin.vm.volume.List", "")
	if err != nil {
		return nil, err
	}
	var keep []string
	elsewhere := ""
	for _, v := range all {
		info, err := c.VolumeInfo(ctx, c.from, v)
		if err != nil {
			return nil, err
		}
		if client.Lookup(info, "rw") != "True" || client.Lookup(info, "snap_on_start") == "True" && client.Lookup(info, "save_on_stop") != "True" {
			continue
		}
		if client.Lookup(info, "save_on_stop") == "True" {
			keep = append(keep, v)
		}
		usual, err := c.Property(ctx, "", "default_pool_"+v)
		if err != nil {
			return nil, err
		}
		if pool := client.Lookup(info, "pool"); pool != usual.Value {
			elsewhere += " pool:" + v + "=" + pool
		}
	}
	if c.pools == "" {
		c.pools = elsewhere
	}
	return keep, nil
}

func (c *copier) properties(ctx context.Context, props map[string]client.Property) error {
	have, err := c.Properties(ctx, c.to)
	if err != nil {
		return err
	}
	for _, name := range sortedNames(props) {
		p := props[name]
		if _, ok := have[name]; !ok || p.Default || slices.Contains([]string{"name", "qid", "template", "label", "uuid", "installed_by_rpm", "dispid", "klass"}, name) {
			continue
		}
		if err := c.SetProperty(ctx, c.to, name, p.Value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (c *copier) tags(ctx context.Context) error {
	tags, err := c.Words(ctx, c.from, "admin.vm.tag.List", "")
	for _, t := range tags {
		// Who made the copy is told by a tag of its own.
		if strings.HasPrefix(t, "created-by-") || err != nil {
			continue
		}
		_, err = c.Call(ctx, c.to, "admin.vm.tag.Set", t, nil)
	}
	return err
}

func (c *copier) features(ctx context.Context) error {
	names, err := c.Words(ctx, c.from, "admin.vm.feature.List", "")
	if err != nil {
		return err
	}
	for _, f := range names {
		if strings.HasPrefix(f, "preload-dispvm") && f != "preload-dispvm-max" {
			continue
		}
		value, err := c.Call(ctx, c.from, "admin.vm.feature.Get", f, nil)
		if err == nil {
			_, err = c.Call(ctx, c.to, "admin.vm.feature.Set", f, []byte(value))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	return nil
}

func (c *copier) notes(ctx context.Context) error {
	text, err := c.Call(ctx, c.from, "admin.vm.notes.Get", "", nil)
	if err != nil || text == "" {
		return err
	}
	_, err = c.Call(ctx, c.to, "admin.vm.notes.Set", "", []byte(text))
	return err
}

func (c *copier) firewall(ctx context.Context) error {
	rules, err := c.Call(ctx, c.from, "admin.vm.firewall.Get", "", nil)
	if err != nil || rules == "" || rules == "action=accept\n" {
		return err
	}
	_, err = c.Call(ctx, c.to, "admin.vm.firewall.Set", "", []byte(rules))
	return err
}

func (c *copier) devices(ctx context.Context) error {
	classes, err := c.DeviceClasses(ctx)
	if err != nil {
		return err
	}
	for _, class := range classes {
		assigned, err := c.Assigned(ctx, c.from, class)
		if err != nil {
			return err
		}
		for _, a := range assigned {
			if err := c.Assign(ctx, c.to, a); err != nil {
				return fmt.Errorf("%s: %w", portName(a.Device), err)
			}
		}
	}
	return nil
}
