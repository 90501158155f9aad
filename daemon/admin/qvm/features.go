package qvm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"cubicle/daemon/admin/client"
)

type tags struct {
	verbosity
	VMName string   `arg:"" name:"VMNAME" help:"Name of the qube." complete:"qube"`
	Action string   `arg:"" optional:"" name:"ACTION" enum:"list,ls,l,add,a,set,del,d,unset,u" default:"list" help:"list, add or del." offer:"list add del"`
	Names  []string `arg:"" optional:"" name:"TAG" help:"The tags." complete:"tagof"`
}

func (t *tags) run(ctx context.Context, e *env) error {
	if _, err := e.one(ctx, t.VMName); err != nil {
		return err
	}
	method := "admin.vm.tag.Set"
	switch t.Action {
	case "list", "ls", "l":
		return t.list(ctx, e)
	case "del", "d", "unset", "u":
		method = "admin.vm.tag.Remove"
	}
	if len(t.Names) == 0 {
		return usage("a TAG is needed")
	}
	for _, name := range t.Names {
		_, err := e.Call(ctx, t.VMName, method, name, nil)
		if err != nil && !client.Is(err, "QubesTagNotFoundError") { // it is not there, as was wished
			return err
		}
	}
	return nil
}

func (t *tags) list(ctx context.Context, e *env) error {
	all, err := e.Words(ctx, t.VMName, "admin.vm.tag.List", "")
	if err != nil {
		return err
	}
	if len(t.Names) == 0 {
		slices.Sort(all)
		for _, n := range all {
			fmt.Fprintln(e.Out, n)
		}
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
	VMName  string  `arg:"" name:"VMNAME" help:"Name of the qube." complete:"qube"`
	Feature string  `arg:"" optional:"" name:"FEATURE" help:"The feature; none: all." complete:"feature"`
	Value   *string `arg:"" optional:"" name:"VALUE" help:"Its new value; empty for false."`
}

func (f *features) run(ctx context.Context, e *env) error {
	if _, err := e.one(ctx, f.VMName); err != nil {
		return err
	}
	switch {
	case f.Feature == "" && f.Unset:
		return usage("--unset needs a FEATURE")
	case f.Feature == "":
		all, err := e.featuresOf(ctx, f.VMName, "")
		if err != nil {
			return err
		}
		return pairs(all).writeWhole(e.Out)
	case f.Unset && f.Value != nil:
		return usage("a VALUE cannot be given together with --unset")
	case f.Unset:
		_, err := e.Call(ctx, f.VMName, "admin.vm.feature.Remove", f.Feature, nil)
		if client.Is(err, "QubesFeatureNotFoundError") {
			return nil // it is not set, as was wished
		}
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

// featuresOf are the features whose names begin with a prefix, which is cut
// off, by name.
func (e *env) featuresOf(ctx context.Context, vm, prefix string) ([][2]string, error) {
	names, err := e.Words(ctx, vm, "admin.vm.feature.List", "")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var list [][2]string
	for _, name := range names {
		short, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		value, err := e.Call(ctx, vm, "admin.vm.feature.Get", name, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, [2]string{short, value})
	}
	return list, nil
}

type service struct {
	verbosity
	List    bool    `short:"l" help:"List the services; so it is anyway." xor:"act"`
	Enable  bool    `short:"e" help:"Switch the service on." xor:"act"`
	Disable bool    `short:"d" help:"Switch the service off." xor:"act"`
	Default bool    `short:"D" aliases:"delete,unset" help:"Leave the service to the qube." xor:"act"`
	VMName  string  `arg:"" name:"VMNAME" help:"Name of the qube." complete:"qube"`
	Service string  `arg:"" optional:"" name:"SERVICE" help:"The service; none: all." complete:"service"`
	Value   *string `arg:"" optional:"" name:"on|off" help:"Switch it on or off."`
}

func (s *service) run(ctx context.Context, e *env) error {
	if _, err := e.one(ctx, s.VMName); err != nil {
		return err
	}
	acts := s.Enable || s.Disable || s.Default
	feature := "service." + s.Service
	switch {
	case s.Service == "" && acts:
		return usage("a SERVICE is needed")
	case s.Value != nil && (acts || s.List):
		return usage("on or off cannot be given together with an option")
	case s.Service == "":
		return s.list(ctx, e)
	case s.Default:
		_, err := e.Call(ctx, s.VMName, "admin.vm.feature.Remove", feature, nil)
		if client.Is(err, "QubesFeatureNotFoundError") {
			return nil
		}
		return err
	case s.Value != nil:
		switch strings.ToLower(*s.Value) {
		case "on", "1", "true", "yes":
			s.Enable = true
		case "off", "0", "false", "no":
		default:
			return usage("a service is on or off, not %q", *s.Value)
		}
	case !acts:
		value, err := e.Call(ctx, s.VMName, "admin.vm.feature.Get", feature, nil)
		if client.Is(err, "QubesFeatureNotFoundError") {
			return &Failure{Status: 1}
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(e.Out, onOff(value))
		return nil
	}
	value := ""
	if s.Enable {
		value = "1"
	}
	_, err := e.Call(ctx, s.VMName, "admin.vm.feature.Set", feature, []byte(value))
	return err
}

func onOff(value string) string {
	if value == "" {
		return "off"
	}
	return "on"
}

func (s *service) list(ctx context.Context, e *env) error {
	all, err := e.featuresOf(ctx, s.VMName, "service.")
	if err != nil {
		return err
	}
	for i := range all {
		all[i][1] = onOff(all[i][1])
	}
	return pairs(all).writeWhole(e.Out)
}
