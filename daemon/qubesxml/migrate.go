package qubesxml

import "strings"

// migrate brings what older upstreams wrote into today's terms
// (spec/platform.md §2).
func (p *parser) migrate(d *Document) {
	delete(d.Properties, "default_fw_netvm")
	for i := range d.Labels {
		if l := &d.Labels[i]; l.Name == "gray" && l.Color == 0x555753 {
			l.Color = 0x555555
		}
	}
	for i := range d.Domains {
		q := &d.Domains[i]
		if hvm, ok := q.Properties["hvm"]; ok {
			mode := "pv"
			if isTrue(hvm) {
				mode = "hvm"
			}
			p.rename(q, "hvm", "virt_mode", mode)
		}
		if allowed, ok := q.Properties["dispvm_allowed"]; ok {
			p.rename(q, "dispvm_allowed", "template_for_dispvms", allowed)
		}
		if writer, ok := q.Features["service.meminfo-writer"]; ok {
			delete(q.Features, "service.meminfo-writer")
			if _, set := q.Properties["maxmem"]; !set && writer == "" {
				q.Properties["maxmem"] = "0"
				p.note(q.Name, "feature service.meminfo-writer", "is the property maxmem = 0 today")
			}
		}
	}
	disposables := map[string]bool{}
	for _, q := range d.Domains {
		disposables[q.Name] = isTrue(q.Properties["template_for_dispvms"])
	}
	for i := range d.Domains {
		p.checkDisposables(&d.Domains[i], disposables)
	}
	p.breakLoops(d)
}

func isTrue(text string) bool {
	return strings.EqualFold(strings.TrimSpace(text), "true") || text == "1"
}

// rename puts a property under its name of today, unless that is set too.
func (p *parser) rename(q *Domain, old, name, value string) {
	delete(q.Properties, old)
	if _, set := q.Properties[name]; !set {
		q.Properties[name] = value
		p.note(q.Name, "property "+old, "is the property %s = %s today", name, value)
	}
}

// checkDisposables clears references to qubes that no disposable can be made
// from.
func (p *parser) checkDisposables(q *Domain, templates map[string]bool) {
	for _, name := range []string{"default_dispvm", "management_dispvm"} {
		if to := q.Properties[name]; to != "" && !templates[to] {
			q.Properties[name] = ""
			p.note(q.Name, "property "+name, "%s is no template of disposables: it is none now", short(to))
		}
	}
}

// breakLoops takes the network from a qube whose chain of netvms leads back
// to it.
func (p *parser) breakLoops(d *Document) {
	netvm := make(map[string]string, len(d.Domains))
	for _, q := range d.Domains {
		to, set := q.Properties["netvm"]
		if !set && q.Class != "TemplateVM" && q.Class != adminClass {
			to = d.Properties["default_netvm"]
		}
		netvm[q.Name] = to
	}
	ends := map[string]bool{"": true} // chains that are known to end
	for i := range d.Domains {
		q := &d.Domains[i]
		seen := map[string]bool{}
		at := netvm[q.Name]
		for !ends[at] && !seen[at] && at != q.Name {
			seen[at] = true
			at = netvm[at]
		}
		switch {
		case at == q.Name:
			q.Properties["netvm"], netvm[q.Name] = "", ""
			p.note(q.Name, "property netvm", "its chain of netvms leads back to it: it has none now")
			fallthrough
		case ends[at]:
			ends[q.Name] = true
			for name := range seen {
				ends[name] = true
			}
		}
	}
}
