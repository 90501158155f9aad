package policy

import (
	"slices"
	"strings"
)

// Request is a call as it was made.
type Request struct {
	Service  string
	Argument string // begins with '+'
	Source   string // the caller's name
	Target   string // as requested; may be empty
	// RequestedSource is the remote qube for which a relay calls; else empty.
	RequestedSource string
}

// Reason is a code for why a call is denied.
type Reason string

// The reasons.
const (
	NoRule         Reason = "no-rule"
	DenyRule       Reason = "deny-rule"
	NoTarget       Reason = "no-target"
	BadTarget      Reason = "bad-target" // not a word that a call may have
	UnknownSource  Reason = "unknown-source"
	NoDispVM       Reason = "no-default-dispvm"
	NotABase       Reason = "not-a-disposable-base"
	Loopback       Reason = "loopback"
	NoAutostart    Reason = "autostart"
	NoTransport    Reason = "transport-missing"
	NotRemote      Reason = "requested-source-not-remote"
	WrongRelay     Reason = "wrong-relay"
	NothingToOffer Reason = "empty-ask-list"
	NoGUI          Reason = "no-guivm" // nobody can be asked
	NotOffered     Reason = "not-offered"
	Refused        Reason = "refused" // by the person who was asked
)

var reasons = map[Reason]string{
	NoRule:         "no rule fits the call",
	DenyRule:       "a rule denies it",
	NoTarget:       "the call names no qube that exists, and the rule none instead",
	BadTarget:      "this is not a target",
	UnknownSource:  "the caller is not a qube of this system",
	NoDispVM:       "the caller has no default disposable template",
	NotABase:       "the qube is no template of disposables",
	Loopback:       "a qube cannot call itself",
	NoAutostart:    "the target does not run, and the rule does not let it be started",
	NoTransport:    "the remote qube has no relay or no transport",
	NotRemote:      "the source that the caller speaks for is not a remote qube",
	WrongRelay:     "the caller is not the relay of the source that it speaks for",
	NothingToOffer: "there is no target that could be offered",
	NoGUI:          "the caller has no GUI domain where somebody could be asked",
	NotOffered:     "the chosen target was not among those offered",
	Refused:        "it was refused when asked",
}

// Explain says a reason to people.
func (r Reason) Explain() string { return reasons[r] }

// Decision is what becomes of a call.
type Decision struct {
	Action Action // Ask: Targets are to be offered, and Choose tells the rest
	Rule   *Rule  // that decided; nil when none fits or none was looked at
	Reason Reason // of a denial
	Notify bool   // tell the person

	// Requested is the target as normalised; @default for none.
	Requested string

	// Of an allowed call:
	Target     string // qube, dom0 or @dispvm:BASE; as the call or the rule named it
	TargetUUID string // the same by UUID; empty for dom0
	User       string // empty: the target's default
	Autostart  bool
	Service    string // with argument, instead of the call's; empty: the call's own
	// PolicySource is the remote qube to show as the caller; empty: the caller.
	PolicySource string

	// Of a call to ask about:
	Targets       []string // sorted: qubes, dom0, @dispvm:BASE
	DefaultTarget string   // one of Targets, or empty
	GUIVM         string   // where to ask, or to notify; empty: nowhere

	call *call
	// unasked is the question that nobody can be asked (NoGUI).
	unasked *Decision
}

// target is a call's or a rule's target in a system.
type target struct {
	kind targetKind
	text string  // as it was named
	qube *Domain // the qube, or the base; nil for nothing and @dispvm
}

type targetKind uint8

const (
	toNothing targetKind = iota // @default
	toAdmin                     // the keyword @adminvm
	toQube                      // by name or UUID, also dom0
	toDispVM                    // @dispvm
	toBase                      // @dispvm:B
)

func (t target) isAdmin() bool {
	return t.kind == toAdmin || t.kind == toQube && t.qube.isAdmin()
}

// call is a request whose words have been looked up.
type call struct {
	system  *System
	request Request
	source  *Domain // whom the rules see: the remote qube when a relay calls
	caller  *Domain
	target  target
}

// Decide meets the rules with a call. The service and its argument must have
// passed CheckService.
func (p *Policy) Decide(s *System, r Request) Decision {
	c := &call{system: s, request: r}
	var ok bool
	if c.caller, ok = s.Lookup(r.Source); !ok {
		return Decision{Action: Deny, Reason: UnknownSource}
	}
	c.source = c.caller
	d := Decision{GUIVM: c.caller.GUIVM, call: c}
	if r.RequestedSource != "" {
		remote, ok := s.Lookup(r.RequestedSource)
		switch {
		case !ok || remote.Class != "RemoteVM":
			return d.deny(NotRemote, true)
		case remote.RelayVM == "" || s.known[remote.RelayVM] != c.caller:
			return d.deny(WrongRelay, true)
		}
		c.source, d.PolicySource = remote, remote.Name
	}
	var why Reason
	if c.target, why = s.target(r.Target); why != "" {
		return d.deny(why, why != BadTarget)
	}
	d.Requested = c.target.text
	for _, rule := range p.of(r.Service) {
		if rule.covers(r.Argument) && rule.source.fitsSource(c.source) && rule.target.fits(c) {
			d.Rule = rule
			break
		}
	}
	switch {
	case d.Rule == nil:
		return d.deny(NoRule, true)
	case d.Rule.action == Deny:
		return d.deny(DenyRule, d.Rule.notify)
	case d.Rule.action == Ask:
		return p.ask(d)
	}
	chosen, why := d.Rule.chosen(c)
	if why == "" && !d.Rule.autostart && !runs(chosen) {
		return d.deny(NoAutostart, d.Rule.notify)
	}
	if why != "" {
		return d.deny(why, true)
	}
	return d.allow(chosen)
}

func (d Decision) deny(why Reason, notify bool) Decision {
	return Decision{Action: Deny, Rule: d.Rule, Reason: why, Notify: notify, Requested: d.Requested, GUIVM: d.GUIVM}
}

// target normalises what a call requests (spec/policy.md §4).
func (s *System) target(text string) (target, Reason) {
	switch text {
	case "", "@default":
		return target{kind: toNothing, text: "@default"}, ""
	case "@adminvm":
		return target{kind: toAdmin, text: text, qube: s.known["dom0"]}, ""
	case "@dispvm":
		return target{kind: toDispVM, text: text}, ""
	}
	if name, ok := strings.CutPrefix(text, "@dispvm:"); ok {
		if base := s.base(name); base != nil {
			return target{kind: toBase, text: text, qube: base}, ""
		}
		return target{}, NotABase
	}
	if text[0] == '@' {
		return target{}, BadTarget
	}
	if d, ok := s.known[text]; ok {
		return target{kind: toQube, text: text, qube: d}, ""
	}
	return target{kind: toNothing, text: "@default"}, ""
}

// fitsSource tells whether a rule's source is a qube.
func (t token) fitsSource(d *Domain) bool {
	switch t.kind {
	case everything:
		return true
	case anyVM:
		return !d.isAdmin()
	case adminVM:
		return d.isAdmin()
	}
	return t.names(d)
}

// names tells whether a token means a qube by name, UUID, class or tag.
func (t token) names(d *Domain) bool {
	switch t.kind {
	case byName:
		return d.Name == t.value
	case byUUID:
		return d.UUID == t.value
	case byType:
		return d.Class == t.value
	case byTag:
		return d.has(t.value)
	}
	return false
}

// isBase tells whether a token means the disposables of a base.
func (t token) isBase(d *Domain) bool {
	switch {
	case d == nil || !d.Base:
		return false
	case t.kind == dispVMTag:
		return d.has(t.value)
	case t.kind != dispVMOf:
		return false
	}
	if id, ok := strings.CutPrefix(t.value, "uuid:"); ok {
		return d.UUID == id
	}
	return d.Name == t.value
}

// fits tells whether a rule's target is the call's.
func (t token) fits(c *call) bool {
	switch t.kind {
	case everything:
		return true
	case anyVM:
		return !c.target.isAdmin()
	case adminVM:
		return c.target.isAdmin()
	case noTarget:
		return c.target.kind == toNothing
	case dispVM:
		return c.target.kind == toDispVM
	case dispVMOf, dispVMTag:
		switch c.target.kind {
		case toBase:
			return t.isBase(c.target.qube)
		case toDispVM:
			return t.isBase(c.system.defaultBase(c.source))
		}
		return false
	}
	return c.target.kind == toQube && t.names(c.target.qube)
}

// resolve is what a redirect or a default target means: never @dispvm and
// never a keyword.
func (t token) resolve(c *call) (target, Reason) {
	switch t.kind {
	case adminVM:
		return c.system.dom0()
	case dispVM:
		return c.expand()
	case dispVMOf:
		return c.system.target("@dispvm:" + t.value)
	case byUUID:
		return c.system.existing("uuid:" + t.value)
	}
	return c.system.existing(t.value)
}

func (s *System) existing(name string) (target, Reason) {
	d, ok := s.known[name]
	if !ok {
		return target{}, NoTarget
	}
	return target{kind: toQube, text: name, qube: d}, ""
}

func (s *System) dom0() (target, Reason) { return s.existing("dom0") }

// expand is what @dispvm means for the caller.
func (c *call) expand() (target, Reason) {
	base := c.system.defaultBase(c.source)
	if base == nil {
		return target{}, NoDispVM
	}
	return target{kind: toBase, text: "@dispvm:" + base.Name, qube: base}, ""
}

// chosen is the target that an allowing rule leads to.
func (r *Rule) chosen(c *call) (target, Reason) {
	switch {
	case r.redirect != nil:
		return r.redirect.resolve(c)
	case c.target.kind == toNothing:
		return target{}, NoTarget
	case c.target.kind == toDispVM:
		return c.expand()
	case c.target.isAdmin():
		return c.system.dom0()
	}
	return c.target, ""
}

// runs tells whether a target needs no start. A disposable always does.
func runs(t target) bool { return t.kind == toQube && (t.qube.isAdmin() || t.qube.State == "Running") }

// allow lets a call go to a target, unless that is the caller itself or a
// remote qube that cannot be reached.
func (d Decision) allow(t target) Decision {
	c, rule := d.call, d.Rule
	if t.kind == toQube && (t.qube == c.source || t.qube == c.caller) {
		return d.deny(Loopback, true)
	}
	d.Action, d.User, d.Autostart, d.Notify = Allow, rule.user, rule.autostart, rule.notify
	d.Targets, d.DefaultTarget = nil, ""
	if t.kind == toQube && t.qube.Class == "RemoteVM" {
		relay, ok := c.system.Lookup(t.qube.RelayVM)
		switch {
		case !ok || t.qube.TransportRPC == "":
			return d.deny(NoTransport, true)
		case relay == c.caller:
			return d.deny(Loopback, true)
		}
		d.User, d.Service = "", t.qube.TransportRPC+"+"+t.text+"+"+c.request.Service+c.request.Argument
		t = target{kind: toQube, text: relay.Name, qube: relay}
	}
	switch {
	case t.kind == toBase:
		d.Target, d.TargetUUID = t.text, "@dispvm:uuid:"+t.qube.UUID
	case t.qube.isAdmin():
		d.Target = "dom0"
	default:
		d.Target, d.TargetUUID = t.text, "uuid:"+t.qube.UUID
	}
	return d
}

// ask collects what is to be offered.
func (p *Policy) ask(d Decision) Decision {
	c, rule := d.call, d.Rule
	var offered []target
	if rule.redirect != nil {
		if t, why := rule.redirect.resolve(c); why == "" && t.qube != c.source {
			offered = append(offered, t)
		}
	} else {
		offered = p.offers(c)
	}
	if !rule.autostart {
		offered = slices.DeleteFunc(offered, func(t target) bool { return !runs(t) })
	}
	if len(offered) == 0 {
		return d.deny(NothingToOffer, true)
	}
	d.Action, d.User, d.Autostart, d.Notify = Ask, rule.user, rule.autostart, rule.notify
	for _, t := range offered {
		d.Targets = append(d.Targets, t.choice())
	}
	slices.Sort(d.Targets)
	if rule.defaultTarget != nil {
		if t, why := rule.defaultTarget.resolve(c); why == "" && slices.Contains(d.Targets, t.choice()) {
			d.DefaultTarget = t.choice()
		}
	}
	if d.GUIVM == "" {
		denied := d.deny(NoGUI, false)
		denied.unasked = &d
		return denied
	}
	return d
}

// choice is how a target is offered: by name.
func (t target) choice() string {
	if t.kind == toBase {
		return "@dispvm:" + t.qube.Name
	}
	return t.qube.Name
}

// Choose is what becomes of a call when one of the offered targets is chosen.
func (d Decision) Choose(choice string) Decision {
	if d.Action != Ask || !slices.Contains(d.Targets, choice) {
		return d.deny(NotOffered, d.Rule != nil && d.Rule.notify)
	}
	t, why := d.call.system.target(choice)
	if why != "" || t.kind == toNothing {
		return d.deny(NotOffered, d.Rule.notify)
	}
	return d.allow(t)
}

// Refuse is what becomes of a call that the person who was asked refuses.
func (d Decision) Refuse() Decision { return d.deny(Refused, d.Rule != nil && d.Rule.notify) }

// Assumed is what becomes of a call when whoever is asked chooses the very
// target that was requested. No GUI domain is needed for that.
func (d Decision) Assumed() Decision {
	if d.unasked != nil {
		d = *d.unasked
	}
	if d.Action != Ask {
		return d
	}
	choice := d.Requested
	if t := d.call.target; t.kind == toQube || t.kind == toBase {
		choice = t.choice()
	}
	return d.Choose(choice)
}

// Permits is the answer for who wants to know without making the call
// (spec/policy.md §7): an ask counts as no, or with assumeYes as what Assumed
// says.
func (d Decision) Permits(assumeYes bool) bool {
	return d.Action == Allow || assumeYes && d.Assumed().Action == Allow
}
