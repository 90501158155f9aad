package qvm

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"cubicle/daemon/admin/client"
	nouns "cubicle/daemon/device"
	"cubicle/daemon/qube"
)

// source knows the values that an argument can have.
type source struct {
	ctx context.Context
	*env
	w *walker
}

// value are the values of an option or a positional argument, by its tag
// complete.
func (s *source) value(v *kong.Value) ([]proposal, error) {
	if v.Tag.Has("offer") {
		return bare(strings.Fields(v.Tag.Get("offer"))), nil
	}
	if v.Enum != "" {
		var list []proposal
		for _, word := range v.EnumSlice() {
			if word != "" {
				list = append(list, proposal{word, ""})
			}
		}
		return list, nil
	}
	switch kind := v.Tag.Get("complete"); kind {
	case "qube":
		if chooser, ok := s.w.tool.(interface{ offers(client.Qube) bool }); ok && v.Flag == nil {
			return s.qubes(chooser.offers)
		}
		return s.qubes(func(client.Qube) bool { return true })
	case "template":
		return s.qubes(func(q client.Qube) bool { return q.Class == "TemplateVM" || s.w.given["disp"] })
	case "disptemplate":
		return s.disposableTemplates()
	case "command":
		if s.w.given["all"] || s.w.given["dispvm"] {
			return files, nil
		}
		return s.qubes(func(q client.Qube) bool { return !q.IsAdmin() })
	case "class":
		return s.plain("admin.vmclass.List")
	case "label":
		return s.plain("admin.label.List")
	case "policyfile":
		names, err := s.policyNames(s.ctx)
		return bare(names), err
	case "pool":
		return s.plain("admin.pool.List")
	case "driver":
		return s.drivers()
	case "tag":
		return s.allTags()
	case "tagof":
		return s.tagsOf()
	case "feature":
		return s.of("admin.vm.feature.List", "")
	case "service":
		return s.of("admin.vm.feature.List", "service.")
	case "property", "globalproperty", "assignment", "field":
		return s.properties(kind), nil
	case "value":
		return s.propertyValue()
	case "volume":
		return s.volumes()
	case "device":
		return s.devices()
	case "format":
		return s.formats(), nil
	case "rule":
		return s.rules(), nil
	case "file":
		return files, nil
	}
	return nil, nil
}

func (s *source) qubes(fits func(client.Qube) bool) ([]proposal, error) {
	all, err := s.List(s.ctx)
	if err != nil {
		return nil, err
	}
	var list []proposal
	for _, q := range all {
		if fits(q) && !slices.Contains(s.w.done, q.Name) {
			list = append(list, proposal{q.Name, q.Class + ", " + q.State})
		}
	}
	return list, nil
}

func (s *source) disposableTemplates() ([]proposal, error) {
	rows, err := s.Table(s.ctx, client.PropertyColumn("template_for_dispvms"))
	var list []proposal
	for _, r := range rows {
		if r.Values[0].Text == "True" {
			list = append(list, proposal{r.Name, r.Class})
		}
	}
	return list, err
}

// plain are the words of a method of dom0.
func (s *source) plain(method string) ([]proposal, error) {
	words, err := s.Words(s.ctx, "dom0", method, "")
	return bare(words), err
}

func bare(words []string) []proposal {
	var list []proposal
	for _, w := range words {
		list = append(list, proposal{w, ""})
	}
	return list
}

func (s *source) drivers() ([]proposal, error) {
	text, err := s.Call(s.ctx, "dom0", "admin.pool.ListDrivers", "", nil)
	var list []proposal
	for line := range strings.Lines(text) {
		name, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		list = append(list, proposal{name, params})
	}
	return list, err
}

func (s *source) allTags() ([]proposal, error) {
	rows, err := s.Table(s.ctx, client.TagsColumn)
	var tags []string
	for _, r := range rows {
		tags = append(tags, strings.Fields(r.Values[0].Text)...)
	}
	slices.Sort(tags)
	return bare(slices.Compact(tags)), err
}

// tagsOf are the tags to take from a qube; to give it, all that there are.
func (s *source) tagsOf() ([]proposal, error) {
	if len(s.w.done) > 1 && slices.Contains([]string{"add", "a", "set"}, s.w.done[1]) {
		return s.allTags()
	}
	return s.of("admin.vm.tag.List", "")
}

// of are the words of a method of the qube that the line names, without a
// prefix that they must have.
func (s *source) of(method, prefix string) ([]proposal, error) {
	if len(s.w.done) == 0 {
		return nil, nil
	}
	words, err := s.Words(s.ctx, s.w.done[0], method, "")
	var list []proposal
	for _, w := range words {
		if short, ok := strings.CutPrefix(w, prefix); ok {
			list = append(list, proposal{short, ""})
		}
	}
	return list, err
}

func (s *source) properties(kind string) []proposal {
	rows := allRows()
	var list []proposal
	suffix := ""
	switch kind {
	case "globalproperty":
		rows = qube.SystemRows()
	case "assignment":
		suffix = "="
	case "field":
		for _, head := range sortedNames(computedColumns()) {
			list = append(list, proposal{strings.ToLower(head), ""})
		}
	}
	for _, r := range rows {
		if p := (proposal{r.Name + suffix, r.Help}); !slices.ContainsFunc(list, func(o proposal) bool { return o.text == p.text }) {
			list = append(list, p)
		}
	}
	return list
}

// propertyValue are values of the property that the line names.
func (s *source) propertyValue() ([]proposal, error) {
	if len(s.w.done) < 2 {
		return nil, nil
	}
	rows := allRows()
	at := slices.IndexFunc(rows, func(r qube.Property) bool { return r.Name == s.w.done[1] })
	if at < 0 {
		return nil, nil
	}
	switch rows[at].Type {
	case qube.Bool:
		return bare([]string{"True", "False"}), nil
	case qube.LabelRef:
		return s.plain("admin.label.List")
	case qube.VM:
		return s.qubes(func(q client.Qube) bool { return rows[at].Name != "template" || q.Class == "TemplateVM" })
	}
	return nil, nil
}

func (s *source) volumes() ([]proposal, error) {
	all, err := s.List(s.ctx)
	if err != nil {
		return nil, err
	}
	lists := make([][]proposal, len(all))
	err = s.Each(s.ctx, len(all), func(ctx context.Context, i int) error {
		names, err := s.Words(ctx, all[i].Name, "admin.vm.volume.List", "")
		for _, n := range names {
			lists[i] = append(lists[i], proposal{all[i].Name + ":" + n, ""})
		}
		return err
	})
	return slices.Concat(lists...), err
}

func deviceClassNames(ctx context.Context, e *env) ([]proposal, error) {
	classes, err := e.DeviceClasses(ctx)
	var list []proposal
	for _, c := range classes {
		list = append(list, proposal{string(c), ""})
	}
	return list, err
}

func (s *source) devices() ([]proposal, error) {
	d, ok := s.w.tool.(*device)
	if !ok {
		return nil, nil
	}
	all, err := s.List(s.ctx)
	if err != nil {
		return nil, err
	}
	lists := make([][]proposal, len(all))
	err = s.Each(s.ctx, len(all), func(ctx context.Context, i int) error {
		found, err := s.Devices(ctx, all[i].Name, nouns.Class(cmp.Or(d.class, "block")))
		for _, f := range found {
			lists[i] = append(lists[i], proposal{portName(f.Device), describe(f)})
		}
		return err
	})
	return slices.Concat(lists...), err
}

func (s *source) formats() []proposal {
	all := formats()
	var list []proposal
	for _, n := range sortedNames(all) {
		list = append(list, proposal{n, strings.Join(all[n], ", ")})
	}
	return list
}

func (s *source) rules() []proposal {
	if len(s.w.done) <= 2 {
		return bare([]string{"accept", "drop"})
	}
	return bare([]string{"dsthost=", "dst4=", "dst6=", "proto=tcp", "proto=udp", "proto=icmp", "dstports=", "icmptype=", "specialtarget=dns", "expire=+", "comment="})
}
