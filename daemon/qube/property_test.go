package qube

import (
	"slices"
	"strings"
	"testing"
)

// source is a qube in a system of defaults.
type source struct {
	set      map[string]string
	features map[string]string
	facts    map[string]string
	refs     map[string]*source
	system   *source
}

func (s *source) Explicit(n string) (string, bool) { v, ok := s.set[n]; return v, ok }
func (s *source) Feature(n string) (string, bool)  { v, ok := s.features[n]; return v, ok }
func (s *source) Fact(n string) string             { return s.facts[n] }
func (s *source) Template() Source                 { return s.Refer("template") }
func (s *source) Refer(n string) Source {
	if r, ok := s.refs[n]; ok {
		return r
	}
	return nil
}

func (s *source) System() Source {
	if s.system == nil {
		return s
	}
	return s.system
}

func (s *source) Property(n string) string {
	if s.system == nil {
		return SystemValue(n, s)
	}
	return ValueOf(Class(s.facts["klass"]), n, s)
}

// newQube is a qube of a class with a template and a netvm, or nil.
func newQube(class Class, system *source, set map[string]string, refs map[string]*source) *source {
	q := &source{set: set, features: map[string]string{}, facts: map[string]string{"klass": string(class)}, refs: map[string]*source{}, system: system}
	for name, r := range refs {
		if r != nil {
			q.refs[name], q.set[name] = r, r.Property("name")
		}
	}
	return q
}

func TestValuesComeFromQubeThenTemplateThenSystem(t *testing.T) {
	system := &source{set: map[string]string{"default_qrexec_timeout": "30"}, facts: map[string]string{"default_engine": "runsc"}}
	template := newQube(TemplateVM, system, map[string]string{"memory": "800", "label": "black", "name": "t"}, nil)
	app := newQube(AppVM, system, map[string]string{"label": "blue", "vcpus": "4", "name": "a"}, map[string]*source{"template": template})
	for name, want := range map[string]string{
		"vcpus": "4", "memory": "800", "qrexec_timeout": "30", "shutdown_timeout": "60", "default_user": "user",
		"engine": "runsc", "icon": "appvm-blue", "updateable": "False", "netvm": "", "virt_mode": "pvh", "maxmem": "0",
		"guivm": "dom0", "keyboard_layout": "us++", "bootmode": "default", "kernelopts": "swiotlb=2048", "ip": "", "no_such": "",
	} {
		if got := app.Property(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if got := template.Property("icon"); got != "templatevm-black" {
		t.Errorf("the template's icon is %q", got)
	}
}

func TestParseBringsValuesIntoOneForm(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"autostart", "yes", "True"}, {"autostart", "OFF", "False"}, {"autostart", "maybe", "!"},
		{"memory", "512", "512"}, {"memory", "0", "!"}, {"memory", "007", "!"}, {"memory", "-", "!"}, {"memory", "", "!"},
		{"memory", "99999999999999999999", "!"}, {"memory", "+5", "!"}, {"maxmem", "0", "0"}, {"maxmem", "-1", "!"},
		{"label", "4", "green"}, {"label", "blue", "blue"}, {"label", "pink", "pink"}, {"label", "12", "12"}, {"label", "012", "!"}, {"label", "a b", "!"}, {"label", "", "!"},
		{"netvm", "", ""}, {"netvm", "sys-net", "sys-net"}, {"netvm", "none", "!"}, {"template", "", "!"},
		{"mac", "00:16:3E:00:00:0a", "00:16:3e:00:00:0a"}, {"mac", "00:16:3e:00:00", "!"}, {"mac", "00:16:3e:00:00:+1", "!"},
		{"ip", "10.0.0.1", "10.0.0.1"}, {"ip", "10.0.0.01", "!"}, {"ip", "::1", "!"}, {"ip6", "FD09::1", "fd09::1"}, {"ip6", "::ffff:1.2.3.4", "!"}, {"ip6", "fe80::1%eth0", "!"},
		{"virt_mode", "HVM", "hvm"}, {"virt_mode", "xen", "!"}, {"kernel", "6.1-a", "6.1-a"}, {"kernel", "", ""}, {"kernel", "../x", "!"}, {"kernel", "..", "!"},
		{"keyboard_layout", "de", "de++"}, {"keyboard_layout", "de+nodeadkeys+grp:alt", "de+nodeadkeys+grp:alt"}, {"keyboard_layout", "d3", "!"}, {"keyboard_layout", "a+b+c+d", "!"},
		{"devices_denied", "u******b******u******", "b******u******"}, {"devices_denied", "x******", "!"}, {"devices_denied", "u", "!"}, {"devices_denied", "", ""},
		{"uuid", "x", "!"}, {"qid", "10001", "!"}, {"external_domain", "32752", "!"}, {"external_domain", "7", "7"}, {"kernelopts", strings.Repeat("a", 513), "!"},
		{"default_user", "root;id", "!"}, {"default_user", "us\ner", "!"}, {"default_user", "usér", "!"},
	} {
		row, ok := Lookup(AppVM, c.name)
		if !ok {
			t.Fatalf("no row %s", c.name)
		}
		got, err := row.Parse(c.in)
		if err != nil {
			got = "!"
		}
		if got != c.want {
			t.Errorf("%s=%q: %q (%v), want %q", c.name, c.in, got, err, c.want)
		}
	}
}

func TestTablesAreSortedCompleteAndWithoutDoubles(t *testing.T) {
	tables := [][]Property{SystemRows()}
	for _, c := range Classes() {
		tables = append(tables, Rows(c))
	}
	for _, rows := range tables {
		var names []string
		for _, r := range rows {
			names = append(names, r.Name)
			if r.Help == "" || r.Type == "" {
				t.Errorf("row %s has no help or type", r.Name)
			}
			if r.Set == Never && r.Default == nil {
				t.Errorf("row %s is read-only and has no value", r.Name)
			}
			if (r.Default == nil) != (r.DefaultHelp == "") {
				t.Errorf("row %s does not say where its default comes from", r.Name)
			}
			if r.Type == VM && r.Target == nil {
				t.Errorf("row %s takes every qube", r.Name)
			}
			for _, f := range r.Follows {
				if _, ok := LookupSystem(f.Name); f.Of == OfSystem && !ok {
					t.Errorf("row %s follows the global %s, which does not exist", r.Name, f.Name)
				}
			}
		}
		if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Errorf("bad order: %v", names)
		}
	}
}

// The properties of each class are those of spec/admin-api.md §3, and ours.
func TestClassesHaveTheirProperties(t *testing.T) {
	base := "icon klass label name qid uuid "
	local := base + "default_dispvm devices_denied include_in_backups keyboard_layout maxmem updateable "
	machine := local + "audiovm autostart backup_timestamp bootmode debug default_user dns engine external_domain gateway gateway6 guivm installed_by_rpm " +
		"ip ip6 kernel kernelopts mac management_dispvm memory netvm provides_network qrexec_timeout shutdown_timeout start_time " +
		"stubdom_mem stubdom_uuid stubdom_xid trouble vcpus virt_mode visible_gateway visible_gateway6 visible_ip visible_ip6 visible_netmask xid "
	for class, want := range map[Class]string{
		AdminVM:      local,
		TemplateVM:   machine + "appvm_default_bootmode",
		AppVM:        machine + "template template_for_dispvms",
		StandaloneVM: machine + "template_for_dispvms",
		DispVM:       machine + "auto_cleanup dispid is_preload template",
		RemoteVM:     base + "include_in_backups relayvm remote_name transport_rpc",
	} {
		var got []string
		for _, r := range Rows(class) {
			got = append(got, r.Name)
		}
		names := strings.Fields(want)
		slices.Sort(names)
		if !slices.Equal(got, names) {
			t.Errorf("%s has %v, want %v", class, got, names)
		}
	}
}

// Addresses are those of spec/platform.md §4.1.
func TestAddresses(t *testing.T) {
	system := &source{facts: map[string]string{}}
	net := newQube(AppVM, system, map[string]string{"name": "net", "qid": "2", "provides_network": "True"}, nil)
	for _, c := range []struct {
		class  Class
		qid    string
		ip     string
		ip6    string
		router string
	}{
		{AppVM, "5", "10.137.0.5", "fd09:24ef:4179::a89:5", "10.137.0.2"},
		{AppVM, "254", "10.137.0.254", "fd09:24ef:4179::a89:fe", "10.137.0.2"},
		{AppVM, "255", "10.137.1.1", "fd09:24ef:4179::a89:ff", "10.137.0.2"},
		{AppVM, "10000", "10.137.39.94", "fd09:24ef:4179::a89:2710", "10.137.0.2"},
		{DispVM, "5", "10.138.0.77", "fd09:24ef:4179::a8a:4d", "10.137.0.2"},
	} {
		q := newQube(c.class, system, map[string]string{"name": "q", "qid": c.qid, "dispid": "77"}, map[string]*source{"netvm": net})
		delete(net.features, "ipv6")
		for name, want := range map[string]string{"ip": c.ip, "visible_ip": c.ip, "ip6": "", "visible_gateway": c.router, "gateway": "",
			"visible_netmask": "255.255.255.255", "dns": "10.139.1.1 10.139.1.2", "visible_gateway6": ""} {
			if got := q.Property(name); got != want {
				t.Errorf("%s %s: %s = %q, want %q", c.class, c.qid, name, got, want)
			}
		}
		net.features["ipv6"] = "1"
		q.features["net.fake-ip"], q.features["net.fake-gateway"], q.features["net.fake-netmask"] = "192.168.1.2", "192.168.1.1", "255.255.255.0"
		for name, want := range map[string]string{"ip": c.ip, "visible_ip": "192.168.1.2", "visible_gateway": "192.168.1.1", "visible_netmask": "255.255.255.0",
			"ip6": c.ip6, "visible_ip6": c.ip6, "visible_gateway6": "fd09:24ef:4179::a89:2"} {
			if got := q.Property(name); got != want {
				t.Errorf("%s %s: %s = %q, want %q", c.class, c.qid, name, got, want)
			}
		}
	}
}

func TestIcons(t *testing.T) {
	system := &source{facts: map[string]string{}}
	for _, c := range []struct {
		class Class
		set   string
		serve bool
		want  string
	}{
		{AdminVM, "", false, "adminvm-black"}, {TemplateVM, "", true, "templatevm-red"}, {AppVM, "", false, "appvm-red"},
		{AppVM, "", true, "servicevm-red"}, {AppVM, "template_for_dispvms", true, "templatevm-red"}, {DispVM, "", false, "dispvm-red"},
		{DispVM, "", true, "servicevm-red"}, {StandaloneVM, "", false, "standalonevm-red"}, {RemoteVM, "", false, "remotevm-red"},
	} {
		q := newQube(c.class, system, map[string]string{"name": "q", "label": "red", c.set: "True"}, nil)
		if c.serve {
			q.features["servicevm"] = "1"
		}
		if got := q.Property("icon"); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestNewLabel(t *testing.T) {
	for _, c := range []struct{ name, color, want string }{
		{"pink", "0xFF00aa", "0xff00aa"}, {"9", "0xffffff", ""}, {"a b", "0xffffff", ""}, {"", "0xffffff", ""}, {"x", "ffffff", ""},
		{"x", "0xfffff", ""}, {"x", "0xfffffff", ""}, {"x", "0x+fffff", ""}, {"x", "0x00 000", ""},
	} {
		l, err := NewLabel(c.name, c.color)
		if got := l.Hex(); (err != nil) != (c.want == "") || err == nil && got != c.want {
			t.Errorf("%q %q: %s, %v", c.name, c.color, got, err)
		}
	}
}

// Whatever is accepted for a property is accepted again and stays the same.
func FuzzProperty(f *testing.F) {
	for _, c := range Classes() {
		for _, r := range Rows(c) {
			f.Add(string(c), r.Name, "True")
			f.Add(string(c), r.Name, "1")
		}
	}
	for _, text := range []string{"", "10.0.0.1", "fd00::1", "b******", "00:16:3E:5E:6C:00", "us+intl", "dom0", "\x00", "é", "-0"} {
		f.Add("AppVM", "memory", text)
	}
	f.Add("DispVM", "keyboard_layout", strings.Repeat("A", 256))
	f.Fuzz(func(t *testing.T, class, name, text string) {
		row, ok := Lookup(Class(class), name)
		if !ok {
			if row, ok = LookupSystem(name); !ok {
				return
			}
		}
		value, err := row.Parse(text)
		if err != nil {
			return
		}
		if again, err := row.Parse(value); err != nil || again != value {
			t.Errorf("%s: %q became %q, and that %q: %v", name, text, value, again, err)
		}
		for _, c := range []byte(value) {
			if c >= 0x7f || c < ' ' && (c < '\t' || c > '\r') {
				t.Errorf("%s: %q holds the byte %#x", name, value, c)
			}
		}
	})
}

func TestParseUUID(t *testing.T) {
	u := NewUUID()
	if got, err := ParseUUID(string(u)); err != nil || got != u {
		t.Errorf("%q: %v", u, err)
	}
	for _, bad := range []string{"", strings.ToUpper(string(u)[:35]) + "G", string(u) + "0", strings.Repeat("-", 36), "../../../../../../../../etc/passwd12"} {
		if _, err := ParseUUID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"work", "sys-net", "none", "a-dm", "../x", "1a", "", "a\x00b", strings.Repeat("a", 32)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err == nil && (string(n) != s || len(s) > MaxName || strings.ContainsAny(s, "/\x00 \n@+:")) {
			t.Errorf("%q became %q", s, n)
		}
	})
}
