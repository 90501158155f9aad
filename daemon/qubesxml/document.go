// Package qubesxml reads and writes upstream's qubes.xml (spec/platform.md §2),
// and brings one over into a running system.
//
// Read returns a Document in today's terms, with a note for everything that an
// older upstream wrote in another way. Take makes the Document of a running
// system, which Write exports. Plan compares two Documents and says which
// calls of the Admin API lead from one to the other, and what cannot be
// brought over and why; Carry makes the calls.
package qubesxml

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Limits of a file.
const (
	maxFile    = 16 << 20
	maxDomains = 10_001 // qids go from 0 to 10000
	maxText    = 64 << 10
)

// Document is what a qubes.xml says.
type Document struct {
	Labels     []Label
	Pools      []Pool
	Properties map[string]string // global, set explicitly
	Domains    []Domain          // dom0 too; by qid
}

// Label is a colour label.
type Label struct {
	Name  string
	Color uint32 // 0xRRGGBB
	Index int
}

// Pool is a storage pool.
type Pool struct {
	Name, Driver string
	Options      map[string]string
}

// Domain is a qube. Its name is among its properties and here; references are
// names.
type Domain struct {
	Name       string
	Class      string
	QID        int
	Properties map[string]string // set explicitly; of dom0 without name, qid, uuid, label
	Features   map[string]string
	Tags       []string // sorted
	Devices    []Device
	Volumes    []Volume // by name
}

// Device is an assigned device.
type Device struct {
	Class   string
	Backend string
	Port    string
	ID      string // "*" for any
	Mode    string
	Options map[string]string
}

// Volume is one volume of a qube.
type Volume struct {
	Name string
	// Options are the attributes, such as pool, vid, size.
	Options map[string]string
}

// Note is something that was not brought over as it is, and why.
type Note struct {
	Subject string // a qube's name; empty for the system
	What    string
	Why     string
}

func (n Note) String() string {
	text := n.What + ": " + n.Why
	if n.Subject != "" {
		text = n.Subject + ": " + text
	}
	return text
}

// The file's own form.

type fileXML struct {
	XMLName    xml.Name      `xml:"qubes"`
	Labels     []labelXML    `xml:"labels>label"`
	Pools      []anyXML      `xml:"pools>pool"`
	Properties []propertyXML `xml:"properties>property"`
	Domains    []domainXML   `xml:"domains>domain"`
}

type labelXML struct {
	ID    string `xml:"id,attr"`
	Color string `xml:"color,attr"`
	Name  string `xml:",chardata"`
}

// anyXML is an element whose attributes all count.
type anyXML struct {
	Attrs []xml.Attr `xml:",any,attr"`
}

type propertyXML struct {
	Name  string  `xml:"name,attr"`
	Ref   *string `xml:"ref,attr"`
	Value string  `xml:",chardata"`
}

type domainXML struct {
	ID         string        `xml:"id,attr"`
	Class      string        `xml:"class,attr"`
	Properties []propertyXML `xml:"properties>property"`
	Features   []propertyXML `xml:"features>feature"`
	Tags       []propertyXML `xml:"tags>tag"`
	Devices    []devicesXML  `xml:"devices"`
	Volumes    []anyXML      `xml:"volume-config>volume"`
}

type devicesXML struct {
	Class   string      `xml:"class,attr"`
	Devices []deviceXML `xml:"device"`
}

type deviceXML struct {
	Backend  string        `xml:"backend-domain,attr"`
	ID       string        `xml:"id,attr"`
	Mode     string        `xml:"mode,attr,omitempty"`
	Identity string        `xml:"identity,attr,omitempty"`
	Required *string       `xml:"required,attr"`
	Options  []propertyXML `xml:"option"`
}

// Read reads a qubes.xml.
func Read(r io.Reader) (*Document, []Note, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read qubes.xml: %w", err)
	}
	if len(raw) > maxFile {
		return nil, nil, fmt.Errorf("read qubes.xml: it is larger than %d MiB", maxFile>>20)
	}
	var f fileXML
	if err := xml.Unmarshal(raw, &f); err != nil {
		return nil, nil, fmt.Errorf("read qubes.xml: %w", err)
	}
	p := parser{labels: map[string]string{}, domains: map[string]string{}}
	d, err := p.document(f)
	if err != nil {
		return nil, nil, fmt.Errorf("read qubes.xml: %w", err)
	}
	return d, p.notes, nil
}

// parser turns the file's form into a Document.
type parser struct {
	labels  map[string]string // names by id
	domains map[string]string
	notes   []Note
}

func (p *parser) note(subject, what, why string, args ...any) {
	p.notes = append(p.notes, Note{subject, what, fmt.Sprintf(why, args...)})
}

func (p *parser) document(f fileXML) (*Document, error) {
	d := &Document{Properties: map[string]string{}}
	for _, l := range f.Labels {
		label, err := p.label(l)
		if err != nil {
			return nil, err
		}
		d.Labels = append(d.Labels, label)
		p.labels[l.ID] = label.Name
	}
	for _, x := range f.Pools {
		options := attributes(x)
		pool := Pool{Name: options["name"], Driver: options["driver"], Options: options}
		delete(options, "name")
		delete(options, "driver")
		d.Pools = append(d.Pools, pool)
	}
	if len(f.Domains) > maxDomains {
		return nil, fmt.Errorf("%d domains, at most %d are possible", len(f.Domains), maxDomains)
	}
	// Names first: properties refer to them.
	for _, x := range f.Domains {
		if name, ok := p.name(x); ok {
			p.domains[x.ID] = name
		}
	}
	var err error
	if d.Properties, err = p.values("", f.Properties); err != nil {
		return nil, err
	}
	seen, qids := map[string]bool{}, map[int]string{}
	for _, x := range f.Domains {
		q, err := p.domain(x)
		if err != nil {
			return nil, err
		}
		if seen[q.Name] {
			return nil, fmt.Errorf("two domains are named %s", q.Name)
		}
		if other, used := qids[q.QID]; used {
			return nil, fmt.Errorf("%s and %s have the same qid %d", short(other), short(q.Name), q.QID)
		}
		seen[q.Name], qids[q.QID] = true, q.Name
		d.Domains = append(d.Domains, q)
	}
	slices.SortStableFunc(d.Domains, func(a, b Domain) int { return a.QID - b.QID })
	p.migrate(d)
	return d, nil
}

func (p *parser) label(l labelXML) (Label, error) {
	name := strings.TrimSpace(l.Name)
	color, err := strconv.ParseUint(strings.TrimPrefix(l.Color, "0x"), 16, 24)
	if err != nil || name == "" {
		return Label{}, fmt.Errorf("label %q has the colour %q", short(name), short(l.Color))
	}
	index, err := strconv.Atoi(strings.TrimPrefix(l.ID, "label-"))
	if err != nil {
		return Label{}, fmt.Errorf("label %q has the id %q", short(name), short(l.ID))
	}
	return Label{name, uint32(color), index}, nil
}

const adminClass = "AdminVM"

func (p *parser) name(x domainXML) (string, bool) {
	if x.Class == adminClass {
		return "dom0", true
	}
	for _, v := range x.Properties {
		if v.Name == "name" {
			return strings.TrimSpace(v.Value), true
		}
	}
	return "", false
}

func (p *parser) domain(x domainXML) (Domain, error) {
	name, ok := p.name(x)
	if !ok || name == "" {
		return Domain{}, fmt.Errorf("domain %q has no name", short(x.ID))
	}
	q := Domain{Name: name, Class: x.Class}
	var err error
	if q.Properties, err = p.values(name, x.Properties); err != nil {
		return q, err
	}
	if q.Features, err = p.values(name, x.Features); err != nil {
		return q, err
	}
	qid, ok := q.Properties["qid"]
	if !ok {
		qid = strings.TrimPrefix(x.ID, "domain-")
	}
	if q.QID, err = strconv.Atoi(qid); err != nil || q.QID < 0 || q.QID >= maxDomains {
		return q, fmt.Errorf("%s has the qid %q", short(name), short(qid))
	}
	if (q.QID == 0) != (q.Class == adminClass) {
		return q, fmt.Errorf("%s has the qid %d, and 0 is dom0's", short(name), q.QID)
	}
	if q.Class != adminClass {
		q.Properties["name"], q.Properties["qid"] = name, strconv.Itoa(q.QID)
	} else {
		for _, own := range []string{"name", "qid", "uuid", "label"} {
			delete(q.Properties, own)
		}
	}
	for _, t := range x.Tags {
		q.Tags = append(q.Tags, t.Name)
	}
	slices.Sort(q.Tags)
	q.Tags = slices.Compact(q.Tags)
	for _, group := range x.Devices {
		for _, v := range group.Devices {
			device, err := p.device(name, group.Class, v)
			if err != nil {
				return q, err
			}
			q.Devices = append(q.Devices, device)
		}
	}
	for _, v := range x.Volumes {
		options := attributes(v)
		q.Volumes = append(q.Volumes, Volume{options["name"], options})
		delete(options, "name")
	}
	slices.SortStableFunc(q.Volumes, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return q, nil
}

// values are named values; a ref attribute is the id of a label or a domain.
func (p *parser) values(subject string, list []propertyXML) (map[string]string, error) {
	values := map[string]string{}
	for _, v := range list {
		if v.Name == "" {
			return nil, fmt.Errorf("%s: a value has no name", short(subject))
		}
		value := v.Value
		if v.Ref != nil {
			value = *v.Ref
		}
		if len(value) > maxText {
			return nil, fmt.Errorf("%s: the value of %s has %d bytes", short(subject), short(v.Name), len(value))
		}
		switch {
		case v.Ref != nil && p.domains[value] != "":
			value = p.domains[value]
		case v.Ref != nil && p.labels[value] != "", v.Name == "label" && p.labels[value] != "":
			value = p.labels[value]
		case v.Ref != nil:
			return nil, fmt.Errorf("%s: %s refers to %q, which is not there", short(subject), short(v.Name), short(value))
		}
		values[v.Name] = value
	}
	return values, nil
}

func (p *parser) device(subject, class string, x deviceXML) (Device, error) {
	d := Device{Class: class, Backend: x.Backend, Port: x.ID, ID: x.Identity, Mode: x.Mode}
	if d.ID == "" {
		d.ID = "*"
	}
	var err error
	if d.Options, err = p.values(subject, x.Options); err != nil {
		return d, err
	}
	if class == "pci" {
		// As 00:1f.2 in old files.
		d.Port = strings.ReplaceAll(d.Port, ":", "_")
	}
	if d.Mode == "" {
		d.Mode = "required"
		if x.Required != nil && !strings.EqualFold(*x.Required, "true") {
			d.Mode = "auto-attach"
		}
	}
	return d, nil
}

func attributes(x anyXML) map[string]string {
	m := make(map[string]string, len(x.Attrs))
	for _, a := range x.Attrs {
		if a.Name.Space == "" && a.Name.Local != "xmlns" {
			m[a.Name.Local] = a.Value
		}
	}
	return m
}

// short clips foreign text for an error.
func short(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}

// Write writes the document as upstream does: values that are set, references
// as names, sorted.
func (d *Document) Write(w io.Writer) error {
	var f fileXML
	for _, l := range d.Labels {
		f.Labels = append(f.Labels, labelXML{fmt.Sprintf("label-%d", l.Index), fmt.Sprintf("0x%06x", l.Color), l.Name})
	}
	for _, p := range d.Pools {
		f.Pools = append(f.Pools, anyXML{append([]xml.Attr{attribute("name", p.Name), attribute("driver", p.Driver)}, sorted(p.Options)...)})
	}
	f.Properties = properties(d.Properties)
	for _, q := range d.Domains {
		x := domainXML{ID: fmt.Sprintf("domain-%d", q.QID), Class: q.Class, Properties: properties(q.Properties), Features: properties(q.Features)}
		for _, t := range q.Tags {
			x.Tags = append(x.Tags, propertyXML{Name: t})
		}
		for _, v := range q.Devices {
			g := slices.IndexFunc(x.Devices, func(g devicesXML) bool { return g.Class == v.Class })
			if g < 0 {
				g = len(x.Devices)
				x.Devices = append(x.Devices, devicesXML{Class: v.Class})
			}
			x.Devices[g].Devices = append(x.Devices[g].Devices,
				deviceXML{Backend: v.Backend, ID: v.Port, Mode: v.Mode, Identity: v.ID, Options: properties(v.Options)})
		}
		for _, v := range q.Volumes {
			x.Volumes = append(x.Volumes, anyXML{append([]xml.Attr{attribute("name", v.Name)}, sorted(v.Options)...)})
		}
		f.Domains = append(f.Domains, x)
	}
	if _, err := io.WriteString(w, "<?xml version='1.0' encoding='utf-8'?>\n"); err != nil {
		return fmt.Errorf("write qubes.xml: %w", err)
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	err := errors.Join(e.Encode(f), e.Close())
	if err == nil {
		_, err = io.WriteString(w, "\n")
	}
	if err != nil {
		return fmt.Errorf("write qubes.xml: %w", err)
	}
	return nil
}

func properties(m map[string]string) []propertyXML {
	var list []propertyXML
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, propertyXML{Name: name, Value: m[name]})
	}
	return list
}

func sorted(m map[string]string) []xml.Attr {
	var list []xml.Attr
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, attribute(name, m[name]))
	}
	return list
}

func attribute(name, value string) xml.Attr {
	return xml.Attr{Name: xml.Name{Local: name}, Value: value}
}
