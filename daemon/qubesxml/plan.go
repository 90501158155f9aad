package qubesxml

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"cubicle/daemon/device"
	"cubicle/daemon/qube"
)

// PlanOptions say how a Document is to be brought over.
type PlanOptions struct {
	// Update lets qubes and settings that are there already become what the
	// Document says. Nothing is ever removed.
	Update bool
	// Templates names the template that is to take the place of another.
	Templates map[string]string
	// Beside is the folder that the qubes.xml is in, with those of the qubes;
	// nil: their files are not looked at.
	Beside fs.FS
}

// Step is one call of the Admin API.
type Step struct {
	Text    string // what it does, for people
	Dest    string
	Method  string
	Arg     string
	Payload string
	Makes   string // the qube that the call makes: later steps for it depend on it
}

// Plan says what to do.
type Plan struct {
	Steps []Step
	Notes []Note
}

// planner makes a Plan.
type planner struct {
	Plan
	want, have *Document
	o          PlanOptions
	template   map[string]string  // of the Document's templates, by what it is here
	here       map[string]*Domain // what is there, by name
	made       map[string]bool    // qubes that are created
	touched    []*Domain          // qubes that get settings, in their order
}

// NewPlan compares what is wanted with what is there.
func NewPlan(want, have *Document, o PlanOptions) *Plan {
	p := &planner{want: want, have: have, o: o, template: map[string]string{}, made: map[string]bool{}, here: map[string]*Domain{}}
	for i := range have.Domains {
		p.here[have.Domains[i].Name] = &have.Domains[i]
	}
	p.labels()
	p.pools()
	p.templates()
	p.qubes()
	for _, q := range p.touched {
		p.volumes(q)
		p.properties(q, false)
	}
	// What names other qubes comes when all qubes are what they are to be.
	for _, q := range p.touched {
		p.properties(q, true)
		p.features(q)
		p.tags(q)
		p.devices(q)
		p.beside(q)
	}
	p.globals()
	if len(p.made) > 0 {
		p.note("", "data", "qubes.xml has none: the volumes of new qubes are empty, and a backup brings what was in them")
		p.note("", "numbers", "new qubes get a uuid, a qid and addresses of their own")
	}
	return &p.Plan
}

// find returns a qube that is there.
func (p *planner) find(name string) (*Domain, bool) {
	q, ok := p.here[name]
	return q, ok
}

func (p *planner) note(subject, what, why string, args ...any) {
	p.Notes = append(p.Notes, Note{subject, what, fmt.Sprintf(why, args...)})
}

func (p *planner) step(text, dest, method, arg, payload string) *Step {
	p.Steps = append(p.Steps, Step{Text: text, Dest: dest, Method: method, Arg: arg, Payload: payload})
	return &p.Steps[len(p.Steps)-1]
}

func (p *planner) labels() {
	for _, l := range p.want.Labels {
		i := slices.IndexFunc(p.have.Labels, func(h Label) bool { return h.Name == l.Name })
		switch err := qube.CheckLabelName(l.Name); {
		case i < 0 && err != nil:
			p.note("", "label "+short(l.Name), "is not made: %v", err)
		case i < 0:
			p.step(fmt.Sprintf("create label %s (0x%06x)", l.Name, l.Color), "dom0", "admin.label.Create", l.Name, fmt.Sprintf("0x%06x", l.Color))
		case p.have.Labels[i].Color != l.Color:
			p.note("", "label "+l.Name, "has the colour 0x%06x here, which stays", p.have.Labels[i].Color)
		}
	}
}

func (p *planner) pools() {
	for _, pool := range p.want.Pools {
		if !slices.ContainsFunc(p.have.Pools, func(h Pool) bool { return h.Name == pool.Name }) {
			p.note("", "pool "+pool.Name, "is not here (driver %s): volumes go to the default pool", short(pool.Driver))
		}
	}
}

// templates finds what the templates of the Document are here: a qube.xml has
// no data, and so a template cannot be made of it.
func (p *planner) templates() {
	fallback := p.have.Properties["default_template"]
	for _, q := range p.want.Domains {
		if q.Class != string(qube.TemplateVM) {
			continue
		}
		to, named := p.o.Templates[q.Name]
		if !named {
			to = q.Name
		}
		if h, ok := p.find(to); ok && h.Class == string(qube.TemplateVM) {
			p.template[q.Name] = to
			continue
		}
		if h, ok := p.find(fallback); ok && h.Class == string(qube.TemplateVM) {
			p.template[q.Name] = fallback
			p.note(q.Name, "template", "is not here, and %s takes its place", fallback)
			continue
		}
		p.note(q.Name, "template", "is not here, and nothing takes its place: create a template first")
	}
}

// wantedTemplate is what a qube of the Document is to be based on here.
func (p *planner) wantedTemplate(q *Domain) (string, bool) {
	name := q.Properties["template"]
	if to, ok := p.template[name]; ok {
		return to, true
	}
	// A template of disposables is a qube like others.
	_, here := p.find(name)
	return name, here || p.made[name]
}

// qubes creates those that are not there, disposables last.
func (p *planner) qubes() {
	rank := func(q Domain) int {
		switch {
		case q.Class == adminClass:
			return 0
		case q.Class == string(qube.DispVM):
			return 3
		case isTrue(q.Properties["provides_network"]) || isTrue(q.Properties["template_for_dispvms"]):
			return 1 // others refer to them
		}
		return 2
	}
	list := slices.Clone(p.want.Domains)
	slices.SortStableFunc(list, func(a, b Domain) int { return rank(a) - rank(b) })
	for i := range list {
		q := &list[i]
		h, exists := p.find(q.Name)
		switch {
		case q.Class == adminClass:
			p.touched = append(p.touched, q)
		case exists && h.Class != q.Class:
			p.note(q.Name, "qube", "is a %s here and a %s there: it stays as it is", h.Class, short(q.Class))
		case exists && !p.o.Update:
			p.note(q.Name, "qube", "is here already and stays as it is")
		case exists:
			p.touched = append(p.touched, q)
		default:
			p.create(q)
		}
	}
}

func (p *planner) create(q *Domain) {
	class, err := qube.ParseClass(q.Class)
	if err != nil {
		p.note(q.Name, "qube", "%v", err)
		return
	}
	if _, err := qube.ParseName(q.Name); err != nil {
		p.note(q.Name, "qube", "%v", err)
		return
	}
	label := q.Properties["label"]
	if label == "" || qube.CheckLabelName(label) != nil {
		label = "red"
		p.note(q.Name, "label", "is missing or none: the qube gets red")
	}
	based := ""
	switch class {
	case qube.TemplateVM:
		return // told already
	case qube.DispVM:
		if isTrue(q.Properties["auto_cleanup"]) {
			p.note(q.Name, "qube", "is a disposable that ends with its use: there is nothing to bring over")
			return
		}
		fallthrough
	case qube.AppVM:
		var ok bool
		if based, ok = p.wantedTemplate(q); !ok {
			p.note(q.Name, "qube", "its template %q is not here: it is left out", short(q.Properties["template"]))
			return
		}
	case qube.StandaloneVM:
		p.note(q.Name, "volume root", "is empty: qubes.xml has no data; restore it from a backup")
	}
	text := fmt.Sprintf("create %s, a %s %s", q.Name, label, class)
	if based != "" {
		text += " on " + based
	}
	p.step(text, "dom0", "admin.vm.Create."+q.Class, based, "name="+q.Name+" label="+label).Makes = q.Name
	p.made[q.Name] = true
	p.touched = append(p.touched, q)
	// Others can refer to it only then.
	for _, first := range []string{"provides_network", "template_for_dispvms"} {
		if value, ok := q.Properties[first]; ok && isTrue(value) {
			p.set(q, first, "True")
		}
	}
}

func (p *planner) set(q *Domain, name, value string) {
	shown := value
	if shown == "" {
		shown = "none"
	}
	p.step(fmt.Sprintf("set %s of %s to %s", name, q.Name, shown), q.Name, "admin.vm.property.Set", name, value)
}

// own tells the properties that are not brought over: what the other system
// knew the qube by, and what happened to it there.
func own(name string) bool {
	return slices.Contains([]string{"name", "uuid", "qid", "dispid", "installed_by_rpm", "backup_timestamp"}, name)
}

// properties sets what differs: references to other qubes, or everything else.
func (p *planner) properties(q *Domain, references bool) {
	h, exists := p.find(q.Name)
	for _, name := range slices.Sorted(maps.Keys(q.Properties)) {
		value := q.Properties[name]
		row, known := qube.Lookup(qube.Class(q.Class), name)
		if known && (row.Type == qube.VM) != references || !known && references {
			continue
		}
		if own(name) || p.made[q.Name] && (name == "label" || name == "template") {
			continue
		}
		switch {
		case !known:
			p.note(q.Name, "property "+name, "qubes of class %s have none here", short(q.Class))
			continue
		case row.Set == qube.Never || row.Set == qube.AtCreation:
			p.note(q.Name, "property "+name, "cannot be set")
			continue
		}
		if to, ok := p.template[value]; ok && row.Type == qube.VM {
			value = to
		}
		value, err := row.Parse(value)
		if err != nil {
			p.note(q.Name, "property "+name, "%v", err)
			continue
		}
		if row.Type == qube.VM && value != "" && !p.exists(value) {
			p.note(q.Name, "property "+name, "%s is not here", short(value))
			continue
		}
		if p.made[q.Name] && value == "True" && (name == "provides_network" || name == "template_for_dispvms") {
			continue // done at creation
		}
		if exists && p.stays(q.Name, "property "+name, h.Properties, name, value) {
			continue
		}
		p.set(q, name, value)
	}
}

// stays tells whether something is not to be set: it is so already, or people
// have set it otherwise and want it kept.
func (p *planner) stays(subject, what string, here map[string]string, name, value string) bool {
	old, set := here[name]
	if set && old != value && !p.o.Update {
		p.note(subject, what, "is %q here, which stays", old)
		return true
	}
	return set && old == value
}

func (p *planner) exists(name string) bool {
	_, ok := p.find(name)
	return ok || p.made[name]
}

// passing are features that describe the other system at a moment.
func passing(name string) bool {
	for _, prefix := range []string{"backup-", "preload-dispvm", "updates-available", "last-update", "deferred-netvm-original", "menu-update-pending-for", "menu-remove-pending-for"} {
		if strings.HasPrefix(name, prefix) {
			return name != "preload-dispvm-max" && name != "preload-dispvm-delay" && name != "preload-dispvm-threshold"
		}
	}
	return false
}

func (p *planner) features(q *Domain) {
	h, exists := p.find(q.Name)
	for _, name := range slices.Sorted(maps.Keys(q.Features)) {
		value := q.Features[name]
		if passing(name) || name == "servicevm" && isTrue(q.Properties["provides_network"]) {
			continue
		}
		if !isFeature(name) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			p.note(q.Name, "feature "+short(name), "name or value has characters that are not allowed")
			continue
		}
		if exists && p.stays(q.Name, "feature "+name, h.Features, name, value) {
			continue
		}
		p.step(fmt.Sprintf("set feature %s of %s to %q", name, q.Name, value), q.Name, "admin.vm.feature.Set", name, value)
	}
}

const wordBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

func isFeature(name string) bool {
	return name != "" && strings.Trim(name, wordBytes+".") == "" && isOnly(name, wordBytes+".")
}

func isOnly(s, allowed string) bool {
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(allowed, s[i]) < 0 {
			return false
		}
	}
	return true
}

// automatic are the tags that follow from something else
// (spec/admin-api.md §5.3).
func automatic(tag string) bool {
	for _, prefix := range []string{"created-by-", "disp-created-by-", "guivm-", "audiovm-", "relayvm-", "backup-restore-"} {
		if strings.HasPrefix(tag, prefix) {
			return true
		}
	}
	return false
}

func (p *planner) tags(q *Domain) {
	h, exists := p.find(q.Name)
	for _, tag := range q.Tags {
		switch {
		case automatic(tag) || exists && slices.Contains(h.Tags, tag):
		case tag == "" || !isOnly(tag, wordBytes):
			p.note(q.Name, "tag "+short(tag), "has characters that are not allowed")
		default:
			p.step(fmt.Sprintf("tag %s with %s", q.Name, tag), q.Name, "admin.vm.tag.Set", tag, "")
		}
	}
}

func (p *planner) devices(q *Domain) {
	h, exists := p.find(q.Name)
	for _, v := range q.Devices {
		what := fmt.Sprintf("%s device %s:%s", short(v.Class), short(v.Backend), short(v.Port))
		class, err := device.ParseClass(v.Class)
		if err != nil {
			p.note(q.Name, what, "%v", err)
			continue
		}
		a := device.Assignment{Device: device.Device{Class: class, Backend: v.Backend, Port: v.Port, ID: v.ID}, Options: v.Options}
		if a.Mode, err = device.ParseMode(v.Mode); err == nil {
			_, err = device.ParseArgument(class, a.Argument())
		}
		if err == nil {
			err = a.Check()
		}
		if err != nil {
			p.note(q.Name, what, "%v", err)
			continue
		}
		if v.Backend != "*" && !p.exists(v.Backend) && v.Backend != "dom0" {
			p.note(q.Name, what, "its qube %s is not here", short(v.Backend))
			continue
		}
		if exists && slices.ContainsFunc(h.Devices, func(o Device) bool {
			return o.Class == v.Class && o.Backend == v.Backend && o.Port == v.Port && o.ID == v.ID
		}) {
			continue
		}
		p.step("assign "+what+" to "+q.Name, q.Name, "admin.vm.device."+v.Class+".Assign", a.Argument(), a.Serialize(qube.Name(q.Name)))
	}
}

// privateSize is what a new private volume has (spec/platform.md §1.1).
const privateSize = 2 << 30

// volumes gives a new qube the room that it had.
func (p *planner) volumes(q *Domain) {
	if !p.made[q.Name] {
		return
	}
	for _, v := range q.Volumes {
		size, err := strconv.ParseInt(v.Options["size"], 10, 64)
		if v.Name != "private" || err != nil || size <= privateSize {
			continue
		}
		p.step(fmt.Sprintf("resize the private volume of %s to %d bytes", q.Name, size), q.Name, "admin.vm.volume.Resize", "private", strconv.FormatInt(size, 10))
	}
}

// globals sets the system's properties that nobody has set here.
func (p *planner) globals() {
	for _, name := range slices.Sorted(maps.Keys(p.want.Properties)) {
		value := p.want.Properties[name]
		row, known := qube.LookupSystem(name)
		switch {
		case !known:
			p.note("", "property "+name, "the system has none here")
			continue
		case row.Set == qube.Never:
			p.note("", "property "+name, "cannot be set")
			continue
		case strings.HasPrefix(name, "default_pool") && !slices.ContainsFunc(p.have.Pools, func(h Pool) bool { return h.Name == value }):
			p.note("", "property "+name, "the pool %s is not here", short(value))
			continue
		}
		if to, ok := p.template[value]; ok && row.Type == qube.VM {
			value = to
		}
		value, err := row.Parse(value)
		if err != nil {
			p.note("", "property "+name, "%v", err)
			continue
		}
		if row.Type == qube.VM && value != "" && !p.exists(value) {
			p.note("", "property "+name, "%s is not here", short(value))
			continue
		}
		if !p.stays("", "property "+name, p.have.Properties, name, value) {
			p.step(fmt.Sprintf("set the global property %s to %s", name, value), "dom0", "admin.property.Set", name, value)
		}
	}
}
