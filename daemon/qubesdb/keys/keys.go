// Package keys says what dom0 has to say in the QubesDB of each qube
// (spec/platform.md §3.2): everything follows from the property table,
// features and the state of the other qubes. Survey.Of is the whole of it for
// one qube; Follow keeps the databases of all running qubes that way.
package keys

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/network/firewall"
	"cubicle/daemon/qube"
	"cubicle/daemon/qubesdb"
)

// Host is what the qubes are told that is not in the core.
type Host struct {
	Timezone string // zone name such as Europe/Berlin; empty when unknown
	Now      time.Time
	// Firewall returns a qube's rules.
	Firewall func(q core.Qube) []firewall.Rule
}

// Survey is a view, and who depends on whom in it.
type Survey struct {
	view    *core.View
	host    Host
	clients map[string][]core.Qube // running qubes, by their netvm
	relayed map[string][]core.Qube // qubes elsewhere, by their relay
}

// NewSurvey surveys a view.
func NewSurvey(v *core.View, h Host) *Survey {
	y := &Survey{view: v, host: h, clients: map[string][]core.Qube{}, relayed: map[string][]core.Qube{}}
	for _, q := range v.Qubes() {
		switch {
		case q.Class() == qube.RemoteVM:
			if relay := q.Property("relayvm"); relay != "" {
				y.relayed[relay] = append(y.relayed[relay], q)
			}
		case q.State().IsUp(): // asked first: of many qubes few are
			if netvm := q.Property("netvm"); netvm != "" {
				y.clients[netvm] = append(y.clients[netvm], q)
			}
		}
	}
	return y
}

// Of returns dom0's keys for a running qube, but for the random seed, which is drawn
// anew for each run. Values that no database takes are left out.
func (y *Survey) Of(q core.Qube) map[string]string {
	s, h := set{}, y.host
	identity(s, q)
	if h.Timezone != "" && !isOn(q, "anon-timezone") {
		s["/qubes-timezone"] = h.Timezone
	}
	if q.Property("netvm") != "" {
		uplink(s, q)
	}
	if q.Property("provides_network") == "True" {
		downlink(s, q)
		clients(s, y.clients[string(q.Name())], h)
	}
	services(s, q)
	passed(s, q)
	for _, r := range y.relayed[string(q.Name())] {
		s["/remote/"+string(r.Name())] = cmp.Or(r.Property("remote_name"), string(r.Name()))
	}
	s["/qubes-block-devices"], s["/qubes-usb-devices"] = "", ""
	screen(s, y.view, q)
	s.clean()
	return s
}

// Own returns the keys of dom0's own database.
func Own(admin core.Qube, h Host) map[string]string {
	s := set{"/name": string(admin.Name()), "/type": string(admin.Class()), "/keyboard-layout": admin.Property("keyboard_layout")}
	s.some("/qubes-timezone", h.Timezone)
	services(s, admin)
	passed(s, admin)
	s.clean()
	return s
}

// set is keys and values.
type set map[string]string

// clean leaves out what no database takes.
func (s set) clean() {
	for path, value := range s {
		if qubesdb.CheckPath(path) != nil || qubesdb.CheckValue(value) != nil {
			delete(s, path)
		}
	}
}

// some adds a key unless its value is empty.
func (s set) some(path, value string) {
	if value != "" {
		s[path] = value
	}
}

// isOn tells whether a feature of the qube or its template is true.
func isOn(q core.Qube, feature string) bool {
	v, _ := qube.FeatureWithTemplate(q, feature)
	return v != ""
}

// digit is a truth value as agents read it.
func digit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func identity(s set, q core.Qube) {
	s["/name"] = string(q.Name())
	s["/type"] = string(q.Class())
	s["/default-user"] = cmp.Or(q.Property("default_user"), "user")
	s["/qubes-base-template"] = string(q.TemplateName())
	s["/keyboard-layout"] = q.Property("keyboard_layout")
	s["/qubes-debug-mode"] = digit(q.Property("debug") == "True")
	s["/qubes-vm-updateable"] = q.Property("updateable")
	switch {
	case q.Property("updateable") == "True":
		s["/qubes-vm-persistence"] = "full"
	case q.Class() == qube.DispVM:
		s["/qubes-vm-persistence"] = "none"
	default:
		s["/qubes-vm-persistence"] = "rw-only"
	}
	routes := q.Property("provides_network") == "True"
	switch {
	case q.Class() == qube.TemplateVM:
		s["/qubes-vm-type"] = "TemplateVM"
	case routes && q.Property("netvm") != "":
		s["/qubes-vm-type"] = "ProxyVM"
	case routes:
		s["/qubes-vm-type"] = "NetVM"
	default:
		s["/qubes-vm-type"] = "AppVM"
	}
}

// dns are the two name servers.
func dns(q core.Qube) (first, second string) {
	first, second, _ = strings.Cut(q.Property("dns"), " ")
	return first, second
}

// uplink is how the qube reaches its netvm: the addresses that it is shown.
func uplink(s set, q core.Qube) {
	s.some("/qubes-mac", q.Property("mac"))
	s.some("/qubes-ip", q.Property("visible_ip"))
	s.some("/qubes-netmask", q.Property("visible_netmask"))
	s.some("/qubes-gateway", q.Property("visible_gateway"))
	s.some("/qubes-ip6", q.Property("visible_ip6"))
	s.some("/qubes-gateway6", q.Property("visible_gateway6"))
	first, second := dns(q)
	s.some("/qubes-primary-dns", first)
	s.some("/qubes-secondary-dns", second)
}

// downlink is what a netvm is to its clients.
func downlink(s set, q core.Qube) {
	s.some("/qubes-netvm-network", q.Property("gateway")) // only that it is not empty counts
	s.some("/qubes-netvm-gateway", q.Property("gateway"))
	s.some("/qubes-netvm-gateway6", q.Property("gateway6"))
	s.some("/qubes-netvm-netmask", "255.255.255.255") // spec/platform.md §4.1
	first, second := dns(q)
	s.some("/qubes-netvm-primary-dns", first)
	s.some("/qubes-netvm-secondary-dns", second)
}

// clients are the running qubes behind a netvm: addresses and firewalls.
func clients(s set, behind []core.Qube, h Host) {
	var ips, ips6 []string
	for _, c := range behind {
		ip, visible := c.Property("ip"), c.Property("visible_ip")
		if ip == "" {
			continue
		}
		ips = append(ips, visible)
		if ip != visible {
			s["/mapped-ip/"+ip+"/visible-ip"] = visible
			s["/mapped-ip/"+ip+"/visible-gateway"] = c.Property("visible_gateway")
		}
		addFirewall(s, c, ip, false, h)
		if ip6 := c.Property("ip6"); ip6 != "" {
			ips6 = append(ips6, c.Property("visible_ip6"))
			addFirewall(s, c, ip6, true, h)
		}
	}
	s["/connected-ips"] = strings.Join(ips, " ")
	s["/connected-ips6"] = strings.Join(ips6, " ")
}

func addFirewall(s set, client core.Qube, ip string, v6 bool, h Host) {
	base := "/qubes-firewall/" + ip
	for key, rule := range firewall.QubesDB(h.Firewall(client), v6, h.Now) {
		s[base+"/"+key] = rule
	}
	s[base] = "" // the signal: the database writes it last
}

// maxService is the longest name of a service, in bytes (spec/admin-api.md
// §5.5).
const maxService = 48

// services are the features that switch services in the qube.
func services(s set, q core.Qube) {
	features := q.Features()
	for feature, value := range features {
		name, ok := strings.CutPrefix(feature, "service.")
		if !ok || name == "" || name == "." || name == ".." || len(name) > maxService || name == "meminfo-writer" {
			continue
		}
		s["/qubes-service/"+name] = digit(value != "")
		if app, ok := strings.CutPrefix(name, "app-dispvm."); ok && value != "" {
			sum := sha256.Sum256([]byte(app))
			s["/hash-app-dispvm/"+base64.RawURLEncoding.EncodeToString(sum[:])] = app
		}
	}
	for feature, name := range map[string]string{"check-updates": "qubes-update-check", "updates-proxy-setup": "yum-proxy-setup"} {
		if value, ok := features[feature]; ok {
			if _, ok := s["/qubes-service/"+name]; !ok {
				s["/qubes-service/"+name] = digit(value != "")
			}
		}
	}
	if maxmem := q.Property("maxmem"); maxmem != "" && q.Class() != qube.AdminVM {
		s["/qubes-service/meminfo-writer"] = digit(maxmem != "0")
	}
}

// What fits below the two prefixes in a path of 63 bytes (spec/admin-api.md
// §5.2).
const (
	maxConfig  = 52
	maxPersist = 54
)

// passed are the features that the qube sees as they are.
func passed(s set, q core.Qube) {
	for feature, value := range q.Features() {
		if name, ok := strings.CutPrefix(feature, "vm-config."); ok && name != "" && len(name) <= maxConfig && isLetter(name[0]) {
			s["/vm-config/"+name] = value
		}
		if name, ok := strings.CutPrefix(feature, "custom-persist."); ok && name != "" && len(name) <= maxPersist {
			s["/persist/"+name] = value
		}
	}
}

func isLetter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }

// screen is who shows the qube's windows and plays its sound.
func screen(s set, v *core.View, q core.Qube) {
	shown := q.Property("guivm") != ""
	if value, ok := q.Feature("gui"); ok && value == "" {
		shown = false
	}
	s["/qubes-gui-enabled"] = "False"
	if shown {
		s["/qubes-gui-enabled"] = "True"
	}
	for property, key := range map[string]string{"guivm": "/qubes-gui-domain-xid", "audiovm": "/qubes-audio-domain-xid"} {
		if r, ok := q.Referent(property); ok {
			if r.IsAdmin() {
				s[key] = "0"
			} else if r.XID() >= 0 {
				s[key] = strconv.Itoa(r.XID())
			}
		}
	}
	dom0, _ := v.Named(qube.Dom0)
	for _, feature := range []string{"gui-videoram-min", "gui-videoram-overhead"} {
		value, ok := qube.FeatureWithTemplate(q, feature)
		if !ok {
			value, _ = dom0.Feature(feature)
		}
		s.some("/qubes-"+feature, value)
	}
	if value, _ := q.Feature("service.guivm"); value != "" {
		prefix, ok := q.Feature("guivm-windows-prefix")
		if !ok {
			prefix = "GuiVM"
		}
		s["/guivm-windows-prefix"] = prefix
	}
}
