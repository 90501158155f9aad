package qubesxml

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"cubicle/daemon/network/firewall"
	"cubicle/daemon/qube"
)

// maxBeside bounds what is read of a file beside a qubes.xml: a call of the
// Admin API has 64 KiB.
const maxBeside = 60 << 10

// beside brings over what upstream keeps in files of the qube's own: the
// firewall's rules, and notes (spec/platform.md §2).
func (p *planner) beside(q *Domain) {
	if p.o.Beside == nil || q.Class == adminClass {
		return
	}
	folder := path.Join("appvms", q.Name)
	if q.Class == string(qube.TemplateVM) {
		folder = path.Join("vm-templates", q.Name)
	}
	if !fs.ValidPath(folder) {
		return
	}
	if raw := p.file(q, path.Join(folder, "firewall.xml")); raw != nil {
		rules, err := firewall.Unmarshal(raw)
		if err != nil {
			p.note(q.Name, "firewall", "%v", err)
		} else {
			p.step(fmt.Sprintf("set the firewall of %s (%d rules)", q.Name, len(rules)), q.Name, "admin.vm.firewall.Set", "", firewall.Format(rules))
		}
	}
	if raw := p.file(q, path.Join(folder, "notes.txt")); raw != nil {
		p.step("set the notes of "+q.Name, q.Name, "admin.vm.notes.Set", "", string(raw))
	}
}

// file reads a file that need not be there.
func (p *planner) file(q *Domain, name string) []byte {
	f, err := p.o.Beside.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var raw []byte
	if err == nil {
		defer f.Close()
		raw, err = io.ReadAll(io.LimitReader(f, maxBeside+1))
	}
	if err == nil && len(raw) > maxBeside {
		err = fmt.Errorf("it has more than %d KiB", maxBeside>>10)
	}
	if err != nil {
		p.note(q.Name, path.Base(name), "%v", err)
		return nil
	}
	return raw
}
