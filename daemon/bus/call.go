package bus

import (
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// A call goes through godbus' lookups (object, interface, method) to
// DecodeArguments, where signature and caller are checked, and to Call.

var (
	_ dbus.Handler         = (*session)(nil)
	_ dbus.ServerObject    = target{}
	_ dbus.Interface       = (*member)(nil)
	_ dbus.Method          = (*member)(nil)
	_ dbus.ArgumentDecoder = (*member)(nil)
)

// target is the object that a call is for.
type target struct {
	s    *session
	path dbus.ObjectPath
	obj  object // zero for a node that only leads to others
}

// LookupObject implements dbus.Handler.
func (s *session) LookupObject(p dbus.ObjectPath) (dbus.ServerObject, bool) {
	v := s.core.View()
	if obj, ok := s.lookup(v, p); ok {
		return target{s, p, obj}, true
	}
	for _, n := range s.nodes(v) {
		if n == p || strings.HasPrefix(string(n), below(p)) {
			return target{s, p, object{}}, true
		}
	}
	return nil, false
}

// nodes are all paths of objects, and of the folders that they are in.
func (s *session) nodes(v *core.View) []dbus.ObjectPath {
	return append(slices.Collect(maps.Keys(s.everything(v))),
		client.RootPath+"/device", client.RootPath+"/job", client.RootPath+"/label", client.RootPath+"/pool", client.RootPath+"/qube")
}

func below(p dbus.ObjectPath) string { return strings.TrimSuffix(string(p), "/") + "/" }

// children are the names of the nodes right below a path.
func (s *session) children(p dbus.ObjectPath) []string {
	names := map[string]bool{}
	for _, n := range s.nodes(s.core.View()) {
		if rest, ok := strings.CutPrefix(string(n), below(p)); ok {
			name, _, _ := strings.Cut(rest, "/")
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func (t target) specs() []interfaceSpec {
	specs := []interfaceSpec{introspectableSpec}
	if t.obj.spec != nil {
		specs = append(specs, propertiesSpec, *t.obj.spec)
	}
	if t.path == client.RootPath {
		specs = append(specs, objectManagerSpec)
	}
	return specs
}

// LookupInterface implements dbus.ServerObject.
func (t target) LookupInterface(name string) (dbus.Interface, bool) {
	for _, i := range t.specs() {
		if i.name == name {
			return &member{target: t, iface: i}, true
		}
	}
	return nil, false
}

// member is one method of one object, for one call.
type member struct {
	target
	iface  interfaceSpec
	spec   methodSpec
	sender string
}

// LookupMethod implements dbus.Interface.
func (m *member) LookupMethod(name string) (dbus.Method, bool) {
	spec, ok := m.iface.method(name)
	return &member{target: m.target, iface: m.iface, spec: spec}, ok
}

// NumArguments and the three below implement dbus.Method; the arguments are
// decoded by DecodeArguments alone.
func (m *member) NumArguments() int     { return len(m.spec.in) }
func (m *member) NumReturns() int       { return len(m.spec.out) }
func (m *member) ArgumentValue(int) any { return nil }
func (m *member) ReturnValue(int) any   { return nil }

// DecodeArguments implements dbus.ArgumentDecoder.
func (m *member) DecodeArguments(_ *dbus.Conn, sender string, msg *dbus.Message, _ []any) (args []any, err error) {
	defer m.rescue(&err)
	got, _ := msg.Headers[dbus.FieldSignature].Value().(dbus.Signature)
	if want := signature(m.spec.in); got.String() != want {
		return nil, dbus.NewError("org.freedesktop.DBus.Error.InvalidArgs",
			[]any{fmt.Sprintf("%s takes %q, not %q", m.spec.name, want, got.String())})
	}
	if err := m.s.authorise(sender, m.spec); err != nil {
		return nil, err
	}
	m.sender = sender
	return msg.Body, nil
}

// Call implements dbus.Method.
func (m *member) Call(args ...any) (results []any, err error) {
	defer m.rescue(&err)
	results, err = m.do(args)
	if err != nil {
		return nil, asDBus(err)
	}
	return results, nil
}

// rescue turns a panic into an error of the one call.
func (m *member) rescue(err *error) {
	if p := recover(); p != nil {
		m.s.log.Error("a call made us panic", "method", m.spec.name, "panic", fmt.Sprint(p))
		*err = dbus.NewError("org.freedesktop.DBus.Error.Failed", []any{"internal error"})
	}
}

func asDBus(err error) error {
	if e, ok := err.(*dbus.Error); ok {
		return e
	}
	return dbus.NewError(client.ErrorPrefix+string(core.KindOf(err)), []any{err.Error()})
}

func (m *member) do(args []any) ([]any, error) {
	switch m.iface.name {
	case introspectableSpec.name:
		return []any{introspection(m.specs(), m.s.children(m.path))}, nil
	case propertiesSpec.name:
		return m.property(args)
	case objectManagerSpec.name:
		return m.s.managedObjects(m.sender), nil
	case managerSpec.name:
		return m.manager(args)
	case qubeSpec.name:
		return m.qube(args)
	case poolSpec.name:
		return m.pool()
	case jobSpec.name:
		return nil, m.cancel()
	}
	return nil, fmt.Errorf("%s has no methods", m.iface.name)
}

func (m *member) property(args []any) ([]any, error) {
	iface := args[0].(string)
	if iface != m.obj.spec.name {
		return nil, dbus.NewError("org.freedesktop.DBus.Error.UnknownInterface", []any{"there is no interface " + iface + " here"})
	}
	switch m.spec.name {
	case "GetAll":
		return []any{variants(m.obj.props)}, nil
	case "Get":
		v, ok := m.obj.props[args[1].(string)]
		if !ok {
			return nil, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", []any{"there is no property " + args[1].(string)})
		}
		return []any{dbus.MakeVariant(v)}, nil
	}
	return nil, dbus.NewError("org.freedesktop.DBus.Error.PropertyReadOnly", []any{"use SetProperty"})
}

// managedObjects answers from the mirror, so that the signals that follow
// begin where the answer ends.
func (s *session) managedObjects(sender string) []any {
	s.follow(sender)
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[dbus.ObjectPath]map[string]map[string]dbus.Variant, len(s.mirror))
	for p, o := range s.mirror {
		all[p] = map[string]map[string]dbus.Variant{o.spec.name: variants(o.props)}
	}
	return []any{all}
}

func jobResult(id uint64, err error) ([]any, error) {
	if err != nil {
		return nil, err
	}
	return []any{client.JobPath(id)}, nil
}

func (m *member) manager(args []any) ([]any, error) {
	c := m.s.core
	switch m.spec.name {
	case "AddPool":
		return nil, c.AddPool(m.s.ctx, core.NewPool{Name: args[0].(string), Driver: args[1].(string), Options: args[2].(map[string]string)})
	case "CheckProperty":
		value, err := c.CheckProperty(core.Draft{Class: args[0].(string), Template: args[1].(string)}, args[2].(string), args[3].(string))
		return []any{value}, err
	case "CreateDisposable":
		return m.createDisposable(args[0].(string))
	case "CreateLabel":
		return nil, c.CreateLabel(args[0].(string), fmt.Sprintf("0x%06x", args[1].(uint32)))
	case "CreateQube":
		return m.createQube(args)
	case "CreateTemplate":
		return jobResult(c.CreateTemplate(args[0].(string), args[1].(string)))
	case "DiskSpace":
		info, err := c.PoolInfo(m.s.ctx, c.View().System().Property("default_pool"))
		return []any{uint64(max(info.Size, 0)), uint64(max(info.Used, 0))}, err
	case "DraftProperties":
		return rowsResult(c.DraftProperties(core.Draft{Class: args[0].(string), Template: args[1].(string)}))
	case "ExplainCall":
		return m.explain(args[0].(string), args[1].(string), args[2].(string))
	case "Permissions":
		return m.permissions(args[0].(string))
	case "Properties":
		return rowsResult(c.SystemProperties(), nil)
	case "RecentCalls":
		return []any{m.recentCalls(args[0].(string), args[1].(uint32))}, nil
	case "RemoveLabel":
		return nil, c.RemoveLabel(args[0].(string))
	case "RemovePool":
		return nil, c.RemovePool(args[0].(string))
	case "ResetProperty":
		return nil, c.ResetSystemProperty(args[0].(string))
	case "SetPoolRevisions":
		return nil, c.SetPoolRevisions(args[0].(string), int(args[1].(int32)))
	case "SetProperty":
		return nil, c.SetSystemProperty(args[0].(string), args[1].(string))
	}
	return nil, fmt.Errorf("unknown method %s", m.spec.name)
}

// createDisposable makes a disposable of the template of that name; an empty
// one is dom0's own choice.
func (m *member) createDisposable(template string) ([]any, error) {
	var id qube.UUID
	if template != "" {
		q, ok := m.s.core.View().Named(qube.Name(template))
		if !ok {
			return nil, core.Failf(core.NotFound, "there is no qube named %q", template)
		}
		id = q.UUID()
	}
	d, err := m.s.core.CreateDisposable(id, qube.Dom0)
	if err != nil {
		return nil, err
	}
	return []any{client.QubePath(string(d.UUID)), client.JobPath(d.Job)}, nil
}

func (m *member) createQube(args []any) ([]any, error) {
	n := core.NewQube{Name: args[0].(string), Class: args[1].(string), Label: args[2].(string), Creator: qube.Dom0, Properties: map[string]string{}, Sizes: map[string]int64{}}
	for name, v := range args[3].(map[string]dbus.Variant) {
		if volume, ok := strings.CutPrefix(name, client.SizeOf); ok {
			size, ok := v.Value().(uint64)
			if !ok || size > math.MaxInt64 {
				return nil, core.Failf(core.BadValue, "the size of volume %s is not a number of bytes", volume)
			}
			n.Sizes[volume] = int64(size)
			continue
		}
		text, err := asText(v.Value())
		if err != nil {
			return nil, core.Failf(core.BadProperty, "property %s: %v", name, err)
		}
		if name == "template" {
			n.Template = text
			continue
		}
		n.Properties[name] = text
	}
	return jobResult(m.s.core.Create(n))
}

// asText brings a variant into the property table's form.
func asText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case byte, int16, uint16, int32, uint32, int64, uint64:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("a text, number or truth value is needed")
}

func (m *member) qube(args []any) ([]any, error) {
	id := qube.UUID(strings.ReplaceAll(path.Base(string(m.path)), "_", "-"))
	c := m.s.core
	switch m.spec.name {
	case "Start":
		return jobResult(c.Start(id))
	case "Shutdown":
		return jobResult(c.Shutdown(m.s.ctx, id, args[0].(bool)))
	case "Kill":
		return jobResult(c.Kill(id))
	case "Pause":
		return jobResult(c.Pause(id))
	case "Unpause":
		return jobResult(c.Unpause(id))
	case "Remove":
		return jobResult(c.Remove(id))
	case "Clone":
		return jobResult(c.Clone(id, args[0].(string), qube.Dom0))
	case "StartApp":
		return jobResult(c.StartApp(id, args[0].(string)))
	case "Run":
		return jobResult(c.Run(id, args[0].(string), args[1].(string), args[2].(bool)))
	case "Volumes":
		return m.volumes(id)
	case "Apps", "Console", "KeepRevision", "Messages", "Notes", "Resize", "Revert", "SetNotes":
		return m.inside(id, args)
	}
	return m.settings(id, args)
}

func (m *member) volumes(id qube.UUID) ([]any, error) {
	infos, err := m.s.core.VolumeInfos(m.s.ctx, id)
	if err != nil {
		return nil, err
	}
	list := []map[string]dbus.Variant{}
	for _, i := range infos {
		list = append(list, variants(properties{
			"name": i.Name, "pool": i.Pool, "vid": string(i.Spec.VID), "size": i.Size, "usage": i.Usage,
			"rw": i.Spec.ReadWrite, "source": string(i.Spec.Source), "save_on_stop": i.Spec.SaveOnStop,
			"snap_on_start": i.Spec.SnapOnStart, "revisions_to_keep": int64(i.Spec.Revisions),
			"is_outdated": i.Outdated, "running": i.Running, "revisions": append([]string{}, i.Info.Revisions...), "kept_revisions": append([]string{}, i.Spec.Kept...),
		}))
	}
	return []any{list}, nil
}

func (m *member) pool() ([]any, error) {
	name := m.obj.props["Name"].(string)
	if m.spec.name == "Volumes" {
		ids, err := m.s.core.PoolVolumes(name)
		list := []string{}
		for _, id := range ids {
			list = append(list, string(id))
		}
		return []any{list}, err
	}
	info, err := m.s.core.PoolInfo(m.s.ctx, name)
	return []any{uint64(info.Size), uint64(info.Used)}, err
}

func (m *member) cancel() error {
	for id := range m.s.core.View().Jobs() {
		if client.JobPath(id) == m.path {
			return m.s.core.Cancel(id)
		}
	}
	return core.Failf(core.General, "the job is over")
}
