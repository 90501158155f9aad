package policy

// set is a set of targets: qubes and disposables of bases by their index in
// the system, and what @dispvm means for whoever calls.
type set struct {
	qubes, bases []bool
	dispVM       bool
}

// offers are the targets among which a person may choose (spec/policy.md §6):
// all rules for the service and the caller, from the last to the first, add
// or remove what they are about.
func (p *Policy) offers(c *call) []target {
	s := c.system
	in := set{qubes: make([]bool, len(s.domains)), bases: make([]bool, len(s.domains))}
	usual := s.defaultBase(c.source)
	rules := p.of(c.request.Service)
	for i := len(rules) - 1; i >= 0; i-- {
		r := rules[i]
		if !r.covers(c.request.Argument) || !r.source.fitsSource(c.source) {
			continue
		}
		subject := r.target
		if r.redirect != nil {
			subject = *r.redirect
		}
		in.put(s, subject, r.action != Deny)
		// Upstream still offers the caller's default disposable here, by way of
		// a wider rule below for @dispvm.
		if r.action == Deny && subject.isBase(usual) {
			in.dispVM = false
		}
	}
	if in.dispVM && usual != nil {
		in.bases[usual.index] = true
	}
	var list []target
	for i, d := range s.domains {
		if d.isInternal() {
			continue
		}
		if in.qubes[i] && d != c.source {
			list = append(list, target{kind: toQube, text: d.Name, qube: d})
		}
		if in.bases[i] && d.Base {
			list = append(list, target{kind: toBase, text: "@dispvm:" + d.Name, qube: d})
		}
	}
	return list
}

// put adds or removes what a token means.
func (in *set) put(s *System, t token, add bool) {
	all := t.kind == everything || t.kind == anyVM
	if all || t.kind == dispVM {
		in.dispVM = add
	}
	for i, d := range s.domains {
		switch {
		case d.isAdmin() && (t.kind == everything || t.kind == adminVM), !d.isAdmin() && all, t.names(d):
			in.qubes[i] = add
		}
		if all || t.isBase(d) {
			in.bases[i] = add
		}
	}
}
