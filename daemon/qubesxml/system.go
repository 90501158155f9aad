package qubesxml

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cubicle/daemon/admin/client"
	"cubicle/daemon/device"
	"cubicle/daemon/qube"
)

// Take makes the Document of a running system.
func Take(ctx context.Context, c *client.Client) (*Document, error) {
	d := &Document{}
	for _, part := range []struct {
		what string
		take func(context.Context, *client.Client) error
	}{{"labels", d.takeLabels}, {"pools", d.takePools}, {"global properties", d.takeProperties}, {"qubes", d.takeDomains}} {
		if err := part.take(ctx, c); err != nil {
			return nil, fmt.Errorf("look at the system's %s: %w", part.what, err)
		}
	}
	return d, nil
}

func (d *Document) takeLabels(ctx context.Context, c *client.Client) error {
	names, err := c.Words(ctx, "dom0", "admin.label.List", "")
	if err != nil {
		return err
	}
	for _, name := range names {
		color, err := c.Call(ctx, "dom0", "admin.label.Get", name, nil)
		if err != nil {
			return err
		}
		index, err := c.Call(ctx, "dom0", "admin.label.Index", name, nil)
		if err != nil {
			return err
		}
		rgb, err := strconv.ParseUint(strings.TrimPrefix(color, "0x"), 16, 24)
		if err != nil {
			return fmt.Errorf("label %s: %w", name, err)
		}
		n, err := strconv.Atoi(index)
		if err != nil {
			return fmt.Errorf("label %s: %w", name, err)
		}
		d.Labels = append(d.Labels, Label{name, uint32(rgb), n})
	}
	slices.SortFunc(d.Labels, func(a, b Label) int { return a.Index - b.Index })
	return nil
}

func (d *Document) takePools(ctx context.Context, c *client.Client) error {
	names, err := c.Words(ctx, "dom0", "admin.pool.List", "")
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := c.Pairs(ctx, "dom0", "admin.pool.Info", name)
		if err != nil {
			return err
		}
		p := Pool{Name: name, Options: map[string]string{}}
		for _, pair := range info {
			switch pair[0] {
			case "name", "size", "usage", "included_in": // measured, not set
			case "driver":
				p.Driver = pair[1]
			default:
				p.Options[pair[0]] = pair[1]
			}
		}
		d.Pools = append(d.Pools, p)
	}
	return nil
}

// explicit are the properties that were set.
func explicit(ctx context.Context, c *client.Client, dest string) (map[string]string, error) {
	all, err := c.Properties(ctx, dest)
	if err != nil {
		return nil, err
	}
	set := map[string]string{}
	for name, p := range all {
		if !p.Default {
			set[name] = p.Value
		}
	}
	return set, nil
}

func (d *Document) takeProperties(ctx context.Context, c *client.Client) error {
	var err error
	d.Properties, err = explicit(ctx, c, "")
	return err
}

func (d *Document) takeDomains(ctx context.Context, c *client.Client) error {
	list, err := c.List(ctx)
	if err != nil {
		return err
	}
	classes, err := c.DeviceClasses(ctx)
	if err != nil {
		return err
	}
	d.Domains = make([]Domain, len(list))
	gone := make([]bool, len(list))
	err = c.Each(ctx, len(list), func(ctx context.Context, i int) error {
		var err error
		d.Domains[i], err = takeDomain(ctx, c, list[i], classes)
		if client.Missing(err) {
			gone[i] = true // removed meanwhile
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", list[i].Name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var there []Domain
	for i, q := range d.Domains {
		if !gone[i] {
			there = append(there, q)
		}
	}
	slices.SortFunc(there, func(a, b Domain) int { return a.QID - b.QID })
	d.Domains = there
	return nil
}

func takeDomain(ctx context.Context, c *client.Client, is client.Qube, classes []device.Class) (Domain, error) {
	q := Domain{Name: is.Name, Class: is.Class, Features: map[string]string{}}
	all, err := c.Properties(ctx, is.Name)
	if err != nil {
		return q, err
	}
	q.Properties = map[string]string{}
	for name, p := range all {
		row, known := qube.Lookup(qube.Class(is.Class), name)
		if !p.Default && known && row.Set != qube.Never {
			q.Properties[name] = p.Value
		}
	}
	if !is.IsAdmin() {
		if q.QID, err = strconv.Atoi(all["qid"].Value); err != nil {
			return q, fmt.Errorf("qid: %w", err)
		}
		q.Properties["name"], q.Properties["qid"], q.Properties["uuid"] = is.Name, all["qid"].Value, all["uuid"].Value
	} else {
		for _, own := range []string{"name", "qid", "uuid", "label"} {
			delete(q.Properties, own)
		}
	}
	names, err := c.Words(ctx, is.Name, "admin.vm.feature.List", "")
	if err != nil {
		return q, err
	}
	for _, name := range names {
		if q.Features[name], err = c.Call(ctx, is.Name, "admin.vm.feature.Get", name, nil); err != nil {
			return q, err
		}
	}
	if q.Tags, err = c.Words(ctx, is.Name, "admin.vm.tag.List", ""); err != nil {
		return q, err
	}
	if !is.IsAdmin() {
		for _, class := range classes {
			assigned, err := c.Assigned(ctx, is.Name, class)
			if err != nil {
				return q, err
			}
			for _, a := range assigned {
				q.Devices = append(q.Devices, Device{string(class), a.Backend, a.Port, a.ID, string(a.Mode), a.Options})
			}
		}
	}
	return q, q.takeVolumes(ctx, c)
}

// stored are what a qube.xml says of a volume.
func stored(key string) bool {
	switch key {
	case "pool", "vid", "size", "rw", "source", "save_on_stop", "snap_on_start", "revisions_to_keep", "ephemeral":
		return true
	}
	return false
}

func (d *Domain) takeVolumes(ctx context.Context, c *client.Client) error {
	names, err := c.Words(ctx, d.Name, "admin.vm.volume.List", "")
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := c.VolumeInfo(ctx, d.Name, name)
		if err != nil {
			return err
		}
		v := Volume{name, map[string]string{}}
		for _, pair := range info {
			if stored(pair[0]) && pair[1] != "" {
				v.Options[pair[0]] = pair[1]
			}
		}
		d.Volumes = append(d.Volumes, v)
	}
	slices.SortFunc(d.Volumes, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// Caller makes a call of the Admin API (client.Client).
type Caller interface {
	Call(ctx context.Context, dest, method, arg string, payload []byte) (string, error)
}

// Carry makes the plan's calls. A call that fails is told to done and does not
// stop the others, but those that depend on it. It returns how many failed,
// and an error when ctx ended.
func (p *Plan) Carry(ctx context.Context, c Caller, done func(s Step, err error)) (failed int, err error) {
	lost := map[string]bool{} // qubes that could not be made
	for _, s := range p.Steps {
		if err := ctx.Err(); err != nil {
			return failed, err
		}
		if lost[s.Dest] {
			failed++
			done(s, errDependent)
			continue
		}
		_, err := c.Call(ctx, s.Dest, s.Method, s.Arg, []byte(s.Payload))
		if err != nil {
			failed++
			if s.Makes != "" {
				lost[s.Makes] = true
			}
		}
		done(s, err)
	}
	return failed, nil
}

var errDependent = errors.New("its qube could not be made")
