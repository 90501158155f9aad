package notifier

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/godbus/dbus/v5"
)

// layout is a menu entry on the wire, (ia{sv}av); children are layouts.
type layout struct {
	ID         int32
	Properties map[string]dbus.Variant
	Children   []dbus.Variant
}

// MenuServer offers a menu at a path of a connection. An entry keeps its
// number as long as it keeps its place and key, so that a host which shows
// the menu changes what changed and nothing blinks.
type MenuServer struct {
	conn *dbus.Conn

	mu       sync.Mutex // guards what follows
	entries  []Entry
	numbers  map[string]int32 // by keys from the root, joined
	nodes    map[int32]*node
	next     int32
	revision uint32
}

// node is an entry with its number.
type node struct {
	id       int32
	entry    Entry
	children []*node
}

// newMenuServer exports an empty menu.
func newMenuServer(conn *dbus.Conn) (*MenuServer, error) {
	m := &MenuServer{conn: conn, numbers: map[string]int32{}, nodes: map[int32]*node{0: {}}, revision: 1}
	for face, object := range map[string]any{menuFace: menuMethods{m}, propertiesFace: menuProperties{m}} {
		if err := conn.Export(object, menuPath, face); err != nil {
			return nil, fmt.Errorf("export the menu: %w", err)
		}
	}
	return m, nil
}

// Set shows other entries, telling hosts what changed.
func (m *MenuServer) Set(entries []Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.nodes
	m.entries = entries
	m.nodes = map[int32]*node{}
	root := &node{children: m.number("", entries)}
	m.nodes[0] = root
	for path, id := range m.numbers {
		if m.nodes[id] == nil {
			delete(m.numbers, path)
		}
	}
	if !sameShape(before, m.nodes) {
		m.revision++
		return m.conn.Emit(menuPath, menuFace+".LayoutUpdated", m.revision, int32(0))
	}
	var updated []changedEntry
	for id, n := range m.nodes {
		if id != 0 && !sameLook(before[id].entry, n.entry) {
			updated = append(updated, changedEntry{id, n.properties()})
		}
	}
	if len(updated) == 0 {
		return nil
	}
	slices.SortFunc(updated, func(a, b changedEntry) int { return int(a.ID - b.ID) })
	return m.conn.Emit(menuPath, menuFace+".ItemsPropertiesUpdated", updated, []droppedProperties{})
}

type changedEntry struct {
	ID         int32
	Properties map[string]dbus.Variant
}

type droppedProperties struct {
	ID    int32
	Names []string
}

// number makes nodes of entries, with the numbers that they had.
func (m *MenuServer) number(path string, entries []Entry) []*node {
	nodes := make([]*node, len(entries))
	for i, e := range entries {
		own := path + "/" + strconv.Quote(e.Key)
		id, ok := m.numbers[own]
		if !ok || m.nodes[id] != nil {
			m.next++
			id = m.next
			m.numbers[own] = id
		}
		n := &node{id: id, entry: e}
		m.nodes[id] = n
		n.children = m.number(own, e.Children)
		nodes[i] = n
	}
	return nodes
}

func sameShape(a, b map[int32]*node) bool {
	return maps.EqualFunc(a, b, func(x, y *node) bool {
		return slices.EqualFunc(x.children, y.children, func(c, d *node) bool { return c.id == d.id })
	})
}

func sameLook(a, b Entry) bool {
	return a.Label == b.Label && bytes.Equal(a.Icon, b.Icon) && a.Disabled == b.Disabled &&
		a.Separator == b.Separator && a.Checkable == b.Checkable && a.Checked == b.Checked
}

// properties are a node's as com.canonical.dbusmenu names them; what has its
// default is written too, because it may have been different before.
func (n *node) properties() map[string]dbus.Variant {
	e := n.entry
	p := map[string]dbus.Variant{}
	if n.id == 0 {
		p["children-display"] = dbus.MakeVariant("submenu")
		return p
	}
	if e.Separator {
		p["type"] = dbus.MakeVariant("separator")
		return p
	}
	p["label"] = dbus.MakeVariant(mark(e.Label))
	p["enabled"] = dbus.MakeVariant(!e.Disabled)
	p["visible"] = dbus.MakeVariant(true)
	if e.Icon != nil {
		p["icon-data"] = dbus.MakeVariant(e.Icon)
	}
	if e.Checkable {
		p["toggle-type"] = dbus.MakeVariant("checkmark")
		state := int32(0)
		if e.Checked {
			state = 1
		}
		p["toggle-state"] = dbus.MakeVariant(state)
	}
	if len(e.Children) > 0 {
		p["children-display"] = dbus.MakeVariant("submenu")
	}
	return p
}

// layout is a node with its children down to depth; a negative depth takes
// all.
func (n *node) layout(depth int32) layout {
	l := layout{ID: n.id, Properties: n.properties(), Children: []dbus.Variant{}}
	if depth == 0 {
		return l
	}
	for _, c := range n.children {
		l.Children = append(l.Children, dbus.MakeVariant(c.layout(depth-1)))
	}
	return l
}

func unknownEntry(id int32) *dbus.Error {
	return dbus.MakeFailedError(fmt.Errorf("the menu has no entry %d", id))
}

type menuMethods struct{ m *MenuServer }

// GetLayout implements com.canonical.dbusmenu.
func (s menuMethods) GetLayout(parent, depth int32, _ []string) (uint32, layout, *dbus.Error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	n := s.m.nodes[parent]
	if n == nil {
		return 0, layout{}, unknownEntry(parent)
	}
	return s.m.revision, n.layout(depth), nil
}

// GetGroupProperties implements com.canonical.dbusmenu.
func (s menuMethods) GetGroupProperties(ids []int32, _ []string) ([]changedEntry, *dbus.Error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if len(ids) == 0 {
		ids = slices.Sorted(maps.Keys(s.m.nodes))
	}
	out := []changedEntry{}
	for _, id := range ids {
		if n := s.m.nodes[id]; n != nil {
			out = append(out, changedEntry{id, n.properties()})
		}
	}
	return out, nil
}

// GetProperty implements com.canonical.dbusmenu.
func (s menuMethods) GetProperty(id int32, name string) (dbus.Variant, *dbus.Error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	n := s.m.nodes[id]
	if n == nil {
		return dbus.Variant{}, unknownEntry(id)
	}
	v, ok := n.properties()[name]
	if !ok {
		return dbus.Variant{}, dbus.MakeFailedError(fmt.Errorf("entry %d has no property %q", id, name))
	}
	return v, nil
}

// Event implements com.canonical.dbusmenu.
func (s menuMethods) Event(id int32, kind string, _ dbus.Variant, _ uint32) *dbus.Error {
	s.m.mu.Lock()
	n := s.m.nodes[id]
	s.m.mu.Unlock()
	if n == nil {
		return unknownEntry(id)
	}
	if kind == "clicked" && n.entry.Activate != nil && !n.entry.Disabled {
		go n.entry.Activate()
	}
	return nil
}

// menuEvent is one of EventGroup's.
type menuEvent struct {
	ID   int32
	Kind string
	Data dbus.Variant
	Time uint32
}

// EventGroup implements com.canonical.dbusmenu.
func (s menuMethods) EventGroup(events []menuEvent) ([]int32, *dbus.Error) {
	unknown := []int32{}
	for _, e := range events {
		if s.Event(e.ID, e.Kind, e.Data, e.Time) != nil {
			unknown = append(unknown, e.ID)
		}
	}
	if len(unknown) == len(events) && len(events) > 0 {
		return nil, unknownEntry(unknown[0])
	}
	return unknown, nil
}

// AboutToShow implements com.canonical.dbusmenu: the menu is always ready.
func (s menuMethods) AboutToShow(id int32) (bool, *dbus.Error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.nodes[id] == nil {
		return false, unknownEntry(id)
	}
	return false, nil
}

// AboutToShowGroup implements com.canonical.dbusmenu.
func (s menuMethods) AboutToShowGroup(ids []int32) (updates, unknown []int32, failed *dbus.Error) {
	updates, unknown = []int32{}, []int32{}
	for _, id := range ids {
		if _, err := s.AboutToShow(id); err != nil {
			unknown = append(unknown, id)
		}
	}
	return updates, unknown, nil
}

// menuProperties are the menu object's own.
type menuProperties struct{ m *MenuServer }

func (menuProperties) all() map[string]dbus.Variant {
	return map[string]dbus.Variant{
		"Version":       dbus.MakeVariant(uint32(3)),
		"TextDirection": dbus.MakeVariant("ltr"),
		"Status":        dbus.MakeVariant("normal"),
		"IconThemePath": dbus.MakeVariant([]string{}),
	}
}

// Get implements org.freedesktop.DBus.Properties.
func (p menuProperties) Get(_, name string) (dbus.Variant, *dbus.Error) { return pick(p.all(), name) }

// GetAll implements org.freedesktop.DBus.Properties.
func (p menuProperties) GetAll(string) (map[string]dbus.Variant, *dbus.Error) { return p.all(), nil }

func pick(all map[string]dbus.Variant, name string) (dbus.Variant, *dbus.Error) {
	v, ok := all[name]
	if !ok {
		return dbus.Variant{}, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", []any{"no property " + name})
	}
	return v, nil
}
