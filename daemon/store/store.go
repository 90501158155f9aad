// Package store keeps the durable state: a qube.toml in the folder of each
// qube (appvms/NAME, vm-templates/NAME) and a qubes.toml for the system, below
// paths.Root.State.
//
// A file holds the identity and what was set explicitly; defaults are
// computed. Keys that this version does not know survive a change. What a
// method reports as done is on disk: a change goes to a temporary file, which
// is synced and renamed, and the folder is synced; a change of several files is
// whole or not at all (Commit). A file that cannot be read makes its own qube
// broken, never another.
package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/BurntSushi/toml"

	"cubicle/daemon/device"
	"cubicle/daemon/durable"
	"cubicle/daemon/qube"
)

const (
	qubeFile   = "qube.toml"
	systemFile = "qubes.toml"
	notesFile  = "notes.txt"
	// maxFile bounds what is read: a qube.toml has a few KiB.
	maxFile = 1 << 20
)

// Pending says that a qube is half made or half removed: after a crash what
// is left of it is to be removed.
type Pending string

// The pending operations.
const (
	Creating Pending = "create"
	Removing Pending = "remove"
)

// Record is a qube as it is on disk. Treat it as a value: Clone it before a
// change.
type Record struct {
	Name       qube.Name
	UUID       qube.UUID
	QID        int
	Class      qube.Class
	Pending    Pending           // empty for a whole qube
	Properties map[string]string // set explicitly; in the property table's form
	Features   map[string]string
	Tags       []string // sorted
	Volumes    map[string]Volume
	Devices    []device.Assignment // sorted by device.Compare

	unknown map[string]any
}

// Volume is what was set explicitly for one volume.
type Volume struct {
	Pool string // empty: the default pool
	Size int64  // bytes; 0: the default size
	// Revisions is how many old states the volume keeps; nil: as its pool says.
	Revisions *int
	// Kept are old states that stay beside those, by their pool's names.
	Kept     []string
	ReadOnly bool
	// Foreign: dom0 did not make what it holds. Imported: that may be so of
	// an older state as well.
	Foreign, Imported bool
}

// Clone returns a copy that shares nothing with r.
func (r Record) Clone() Record {
	r.Properties, r.Features, r.Volumes = maps.Clone(r.Properties), maps.Clone(r.Features), maps.Clone(r.Volumes)
	r.Tags, r.Devices = slices.Clone(r.Tags), slices.Clone(r.Devices)
	if r.Properties == nil {
		r.Properties = map[string]string{}
	}
	if r.Features == nil {
		r.Features = map[string]string{}
	}
	for name, v := range r.Volumes {
		v.Kept = slices.Clone(v.Kept)
		r.Volumes[name] = v
	}
	if r.Volumes == nil {
		r.Volumes = map[string]Volume{}
	}
	return r
}

// System is the global state.
type System struct {
	Properties map[string]string
	// Labels are those that people made, by index.
	Labels []qube.Label
	// Pools are the settings of pools, by name.
	Pools map[string]Pool
	// Admin is what dom0 has of its own: features, tags, properties.
	Admin Record
	// Damage is why the file cannot be used, or nil: then everything has its
	// default and nothing can be saved.
	Damage error

	unknown map[string]any
}

// Broken is a qube whose file cannot be used.
type Broken struct {
	Name  qube.Name
	Class qube.Class
	Err   error
}

// Store is the state below one folder.
type Store struct {
	dir string

	mu         sync.Mutex // guards what follows, and serialises changes
	unfinished []change   // of the last change: it stands, and its files do not all
}

// Open returns the store in folder dir and makes the folders that it needs.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	for _, d := range []string{s.dir, filepath.Join(dir, folder(qube.AppVM)), filepath.Join(dir, folder(qube.TemplateVM))} {
		// Engines reach images below: the folders must be passable.
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, fmt.Errorf("open the store: %w", err)
		}
	}
	return s, nil
}

func folder(c qube.Class) string {
	if c == qube.TemplateVM {
		return "vm-templates"
	}
	return "appvms"
}

// Path is the folder of a qube relative to the store, as volume ids use it.
func Path(c qube.Class, n qube.Name) string { return folder(c) + "/" + string(n) }

func (s *Store) path(c qube.Class, n qube.Name, elem ...string) string {
	return filepath.Join(append([]string{s.dir, folder(c), string(n)}, elem...)...)
}

// Load reads everything. Its error means that a folder cannot be read; what is
// wrong with the system's own file is told as its Damage, with a qube's as
// Broken.
func (s *Store) Load() (System, []Record, []Broken, error) {
	if err := s.recover(); err != nil {
		return System{}, nil, nil, fmt.Errorf("finish an interrupted change: %w", err)
	}
	sweep(s.dir, systemFile, journalFile)
	system, err := s.loadSystem()
	if err != nil {
		return System{}, nil, nil, err
	}
	var records []Record
	var broken []Broken
	for _, class := range []qube.Class{qube.TemplateVM, qube.AppVM} {
		entries, err := os.ReadDir(filepath.Join(s.dir, folder(class)))
		if err != nil {
			return System{}, nil, nil, fmt.Errorf("load qubes: %w", err)
		}
		for _, e := range entries {
			name, err := qube.ParseName(e.Name())
			if err != nil || !e.IsDir() {
				continue // not ours
			}
			sweep(s.path(class, name), qubeFile, notesFile, appsFile, firewallFile)
			r, err := s.LoadQube(class, name)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				// A folder with volumes only. One that was just made, or was
				// to be removed, has nothing in it.
				os.Remove(s.path(class, name))
			case err != nil:
				broken = append(broken, Broken{name, class, err})
			default:
				records = append(records, r)
			}
		}
	}
	return system, records, broken, nil
}

// sweep removes what interrupted writes of files left in a folder.
func sweep(dir string, files ...string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // what is wrong shows when the files are read
	}
	for _, e := range entries {
		for _, file := range files {
			if strings.HasPrefix(e.Name(), durable.TempPrefix(file)) {
				os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// LoadQube reads one qube's file; fs.ErrNotExist when it has none.
func (s *Store) LoadQube(class qube.Class, name qube.Name) (Record, error) {
	raw, err := read(s.path(class, name, qubeFile))
	if err != nil {
		return Record{}, err
	}
	r, err := decode(name, class, raw)
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", s.path(class, name, qubeFile), err)
	}
	return r, nil
}

// file is the part of qube.toml that this version knows.
type file struct {
	UUID       string                `toml:"uuid"`
	QID        int                   `toml:"qid"`
	Class      string                `toml:"class"`
	Pending    string                `toml:"pending,omitempty"`
	Properties map[string]any        `toml:"properties,omitempty"`
	Features   map[string]string     `toml:"features,omitempty"`
	Tags       []string              `toml:"tags,omitempty"`
	Volumes    map[string]volumeFile `toml:"volumes,omitempty"`
	Devices    []deviceFile          `toml:"devices,omitempty"`
}

type volumeFile struct {
	Pool string `toml:"pool,omitempty"`
	Size int64  `toml:"size,omitempty"`

	Revisions *int     `toml:"revisions_to_keep,omitempty"`
	Kept      []string `toml:"kept_revisions,omitempty"`
	ReadOnly  bool     `toml:"read_only,omitempty"`
	Foreign   bool     `toml:"foreign,omitempty"`
	Imported  bool     `toml:"imported,omitempty"`
}

func decode(name qube.Name, class qube.Class, raw []byte) (Record, error) {
	var f file
	if _, err := toml.Decode(string(raw), &f); err != nil {
		return Record{}, err
	}
	unknown := map[string]any{}
	if _, err := toml.Decode(string(raw), &unknown); err != nil {
		return Record{}, err
	}
	r := Record{Name: name, QID: f.QID, Features: f.Features, Tags: f.Tags, Pending: Pending(f.Pending), unknown: unknown}
	var err error
	if r.UUID, err = qube.ParseUUID(f.UUID); err != nil {
		return Record{}, fmt.Errorf("uuid: %w", err)
	}
	if r.Class, err = qube.ParseClass(f.Class); err != nil {
		return Record{}, fmt.Errorf("class: %w", err)
	}
	if folder(r.Class) != folder(class) || r.Class == qube.AdminVM {
		return Record{}, fmt.Errorf("class: %s does not belong into %s", r.Class, folder(class))
	}
	if r.QID < 1 || r.QID > 10000 {
		return Record{}, fmt.Errorf("qid: %d is not from 1 to 10000", r.QID)
	}
	lookup := func(n string) (qube.Property, bool) { return qube.Lookup(r.Class, n) }
	if r.Properties, err = texts(f.Properties, lookup); err != nil {
		return Record{}, err
	}
	r.Volumes = map[string]Volume{}
	for n, v := range f.Volumes {
		if v.Size < 0 || v.Revisions != nil && *v.Revisions < -1 {
			return Record{}, fmt.Errorf("volume %s: negative size or number of revisions", n)
		}
		r.Volumes[n] = Volume(v)
	}
	if r.Devices, err = decodeDevices(f.Devices); err != nil {
		return Record{}, err
	}
	slices.Sort(r.Tags)
	return r.Clone(), nil
}

// texts turns the known properties of a file into the table's form.
func texts(values map[string]any, lookup func(string) (qube.Property, bool)) (map[string]string, error) {
	out := map[string]string{}
	for n, v := range values {
		row, ok := lookup(n)
		if !ok {
			continue // a later version's; kept among the unknown
		}
		var text string
		switch v := v.(type) {
		case string:
			text = v
		case int64:
			text = strconv.FormatInt(v, 10)
		case bool:
			text = strconv.FormatBool(v)
		default:
			return nil, fmt.Errorf("property %s: unexpected %T", n, v)
		}
		parsed, err := row.Parse(text)
		if err != nil {
			return nil, err
		}
		out[n] = parsed
	}
	return out, nil
}

// values is the reverse of texts, for the file.
func values(props map[string]string, old any, lookup func(string) (qube.Property, bool)) map[string]any {
	out := map[string]any{}
	if m, ok := old.(map[string]any); ok {
		for n, v := range m {
			if _, known := lookup(n); !known {
				out[n] = v
			}
		}
	}
	for n, text := range props {
		row, _ := lookup(n)
		switch row.Type {
		case qube.Int:
			if i, err := strconv.ParseInt(text, 10, 64); err == nil {
				out[n] = i
				continue
			}
			out[n] = text
		case qube.Bool:
			out[n] = text == "True"
		default:
			out[n] = text
		}
	}
	return out
}

func (r Record) encode() ([]byte, error) {
	m := maps.Clone(r.unknown)
	if m == nil {
		m = map[string]any{}
	}
	m["uuid"], m["qid"], m["class"] = string(r.UUID), r.QID, string(r.Class)
	set(m, "pending", string(r.Pending), r.Pending != "")
	lookup := func(n string) (qube.Property, bool) { return qube.Lookup(r.Class, n) }
	props := values(r.Properties, m["properties"], lookup)
	set(m, "properties", props, len(props) > 0)
	set(m, "features", r.Features, len(r.Features) > 0)
	set(m, "tags", r.Tags, len(r.Tags) > 0)
	volumes := map[string]any{}
	old, _ := m["volumes"].(map[string]any)
	for n, v := range r.Volumes {
		vm := map[string]any{}
		if o, ok := old[n].(map[string]any); ok {
			vm = maps.Clone(o)
		}
		set(vm, "pool", v.Pool, v.Pool != "")
		set(vm, "size", v.Size, v.Size != 0)
		set(vm, "revisions_to_keep", v.Revisions, v.Revisions != nil)
		set(vm, "kept_revisions", v.Kept, len(v.Kept) > 0)
		set(vm, "read_only", true, v.ReadOnly)
		set(vm, "foreign", true, v.Foreign)
		set(vm, "imported", true, v.Imported)
		volumes[n] = vm
	}
	set(m, "volumes", volumes, len(volumes) > 0)
	set(m, "devices", encodeDevices(r.Devices), len(r.Devices) > 0)
	return encode(m)
}

func set(m map[string]any, key string, v any, present bool) {
	if present {
		m[key] = v
		return
	}
	delete(m, key)
}

func encode(m map[string]any) ([]byte, error) {
	var b bytes.Buffer
	e := toml.NewEncoder(&b)
	e.Indent = ""
	if err := e.Encode(m); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Save writes a qube's file, making its folder if need be.
func (s *Store) Save(r Record) error { return s.Commit([]Record{r}, nil) }

// Remove deletes a qube's folder; its volumes must be gone already. The qube's
// file goes last, so that a removal that is interrupted can be finished.
func (s *Store) Remove(c qube.Class, n qube.Name) error {
	dir := s.path(c, n)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", n, err)
	}
	for _, e := range entries {
		if e.Name() == qubeFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove %s: %w", n, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", n, err)
	}
	if err := durable.SyncDir(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("remove %s: %w", n, err)
	}
	return nil
}

// Notes returns the free text that people keep with a qube.
func (s *Store) Notes(c qube.Class, n qube.Name) (string, error) {
	raw, err := read(s.path(c, n, notesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(raw), err
}

// SetNotes replaces it.
func (s *Store) SetNotes(c qube.Class, n qube.Name, text string) error {
	return durable.Write(s.path(c, n, notesFile), []byte(text), nil)
}
