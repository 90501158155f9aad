// Package firewall holds the rules that say what a qube may reach through its
// netvm: their text form in the Admin API, their file, and their form in
// QubesDB (spec/platform.md §5). The first rule that matches decides; when
// none does, the packet is dropped.
package firewall

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Action is what happens to a packet that a rule matches.
type Action string

// The actions.
const (
	Accept Action = "accept"
	Drop   Action = "drop"
)

// Proto is the protocol that a rule is about; empty for all.
type Proto string

// The protocols.
const (
	TCP  Proto = "tcp"
	UDP  Proto = "udp"
	ICMP Proto = "icmp"
)

// Ports is a range of ports, both ends included.
type Ports struct{ From, To uint16 }

// Rule is one rule. The zero value of a field but Action says nothing about
// the packet. At most one of Net and Host is set.
type Rule struct {
	Action Action
	Expire int64        // unix seconds from which the rule is none; 0: never
	Net    netip.Prefix // destination by address, of either family
	Host   string       // destination by name
	Proto  Proto
	DNS    bool   // the destination is one of the two name servers
	Ports  *Ports // goes with TCP and UDP only
	ICMP   *uint8 // type of the message; goes with ICMP only
	// Comment is for people.
	Comment string
}

// Default are the rules of a qube that has none of its own.
func Default() []Rule { return []Rule{{Action: Accept}} }

// Expired reports whether the rule's time is over.
func (r Rule) Expired(now time.Time) bool { return r.Expire != 0 && now.Unix() >= r.Expire }

// Current returns the rules that have not expired.
func Current(rules []Rule, now time.Time) []Rule {
	list := make([]Rule, 0, len(rules))
	for _, r := range rules {
		if !r.Expired(now) {
			list = append(list, r)
		}
	}
	return list
}

// NextExpiry is the first moment after now at which a rule expires.
func NextExpiry(rules []Rule, now time.Time) (at time.Time, ok bool) {
	for _, r := range rules {
		t := time.Unix(r.Expire, 0)
		if r.Expire != 0 && t.After(now) && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	return at, ok
}

// Error tells what is wrong with a rule.
type Error struct {
	Line int    // from 1; 0 where there is but one
	Why  string // printable
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return "firewall rule: " + e.Why
	}
	return fmt.Sprintf("firewall rule %d: %s", e.Line, e.Why)
}

func bad(format string, args ...any) error { return &Error{Why: fmt.Sprintf(format, args...)} }

// Parse reads one rule a line (spec/platform.md §5.1).
func Parse(text string) ([]Rule, error) {
	var rules []Rule
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		r, err := ParseRule(line)
		if err != nil {
			return nil, &Error{i + 1, err.(*Error).Why}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// The bytes of values and, with the space, of comments.
const valueBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:;,./_[]-"

// ParseRule reads a rule: key=value separated by single spaces, each key once,
// comment= last. Every error is an *Error.
func ParseRule(line string) (Rule, error) {
	var r Rule
	options, comment, found := cutComment(line)
	if found {
		if strings.Trim(comment, valueBytes+" ") != "" {
			return Rule{}, bad("a comment has only letters, digits, spaces and :;,./_[]-")
		}
		r.Comment = comment
	}
	seen := map[string]bool{}
	for _, word := range strings.Split(options, " ") {
		if word == "" && found && options == "" {
			break // nothing but a comment: the lack of an action is told below
		}
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return Rule{}, bad("%q is not of the form key=value", clip(word))
		}
		if strings.Trim(value, valueBytes) != "" {
			return Rule{}, bad("the value of %q has bytes that are not allowed", clip(key))
		}
		if seen[key] {
			return Rule{}, bad("%q is there twice", clip(key))
		}
		seen[key] = true
		if err := r.set(key, value); err != nil {
			return Rule{}, err
		}
	}
	return r, r.check()
}

// cutComment divides a line at its comment.
func cutComment(line string) (options, comment string, found bool) {
	if c, ok := strings.CutPrefix(line, "comment="); ok {
		return "", c, true
	}
	return strings.Cut(line, " comment=")
}

// set gives one key its value.
func (r *Rule) set(key, value string) error {
	switch key {
	case "action":
		if r.Action = Action(value); r.Action != Accept && r.Action != Drop {
			return bad("the action is accept or drop, not %q", clip(value))
		}
	case "expire":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n <= 0 || n > maxExpire || strings.Trim(value, "0123456789") != "" {
			return bad("%q is not a time in seconds since 1970", clip(value))
		}
		r.Expire = n
	case "dst4", "dst6", "dsthost", "dstname":
		return r.setDestination(key, value)
	case "proto":
		switch r.Proto = Proto(value); r.Proto {
		case TCP, UDP, ICMP:
		default:
			return bad("the protocol is tcp, udp or icmp, not %q", clip(value))
		}
	case "specialtarget":
		if value != "dns" {
			return bad("the special target is dns, not %q", clip(value))
		}
		r.DNS = true
	case "dstports":
		ports, err := parsePorts(value)
		if err != nil {
			return err
		}
		r.Ports = &ports
	case "icmptype":
		n, err := strconv.ParseUint(value, 10, 8)
		if err != nil {
			return bad("the type of an ICMP message is from 0 to 255, not %q", clip(value))
		}
		t := uint8(n)
		r.ICMP = &t
	default:
		return bad("there is no key %q", clip(key))
	}
	return nil
}

// maxExpire is the end of the year 9999: what upstream's clock can hold.
const maxExpire = 253402300799

func (r *Rule) setDestination(key, value string) error {
	if r.Net.IsValid() || r.Host != "" {
		return bad("only one of dst4, dst6 and dsthost can be there")
	}
	p, isAddress := parseNet(value)
	switch {
	case key == "dst4" && (!isAddress || !p.Addr().Is4()):
		return bad("%q is not an IPv4 address or network", clip(value))
	case key == "dst6" && (!isAddress || p.Addr().Is4()):
		return bad("%q is not an IPv6 address or network", clip(value))
	case isAddress:
		r.Net = p
		return nil
	case value == "" || len(value) > maxHost || strings.Trim(value, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "":
		return bad("%q is neither an address nor the name of a host", clip(value))
	}
	r.Host = value
	return nil
}

// maxHost is the longest name that the name system knows.
const maxHost = 253

// parseNet reads an address with or without the length of its prefix.
func parseNet(text string) (netip.Prefix, bool) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		return p, err == nil && !p.Addr().Is4In6()
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

func parsePorts(text string) (Ports, error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	a, aerr := strconv.ParseUint(from, 10, 16)
	b, berr := strconv.ParseUint(to, 10, 16)
	if aerr != nil || berr != nil || a > b {
		return Ports{}, bad("%q is not a port or a range of ports", clip(text))
	}
	return Ports{uint16(a), uint16(b)}, nil
}

// check tells what does not go together.
func (r Rule) check() error {
	switch {
	case r.Action == "":
		return bad("the action is missing")
	case r.Ports != nil && r.Proto != TCP && r.Proto != UDP:
		return bad("dstports needs proto=tcp or proto=udp")
	case r.ICMP != nil && r.Proto != ICMP:
		return bad("icmptype needs proto=icmp")
	}
	return nil
}

// destination is the key and value of the destination.
func (r Rule) destination() (key, value string) {
	switch {
	case r.Host != "":
		return "dsthost", r.Host
	case !r.Net.IsValid():
		return "", ""
	case r.Net.Addr().Is4():
		return "dst4", r.Net.String()
	}
	return "dst6", r.Net.String()
}

// String is the rule as the Admin API writes it; ParseRule reads it.
func (r Rule) String() string {
	words := []string{"action=" + string(r.Action)}
	if r.Expire != 0 {
		words = append(words, "expire="+strconv.FormatInt(r.Expire, 10))
	}
	words = append(words, r.match()...)
	if r.Comment != "" {
		words = append(words, "comment="+r.Comment)
	}
	return strings.Join(words, " ")
}

// match are the words that say which packets are meant.
func (r Rule) match() []string {
	var words []string
	if key, value := r.destination(); key != "" {
		words = append(words, key+"="+value)
	}
	if r.Proto != "" {
		words = append(words, "proto="+string(r.Proto))
	}
	if r.DNS {
		words = append(words, "specialtarget=dns")
	}
	if r.Ports != nil {
		words = append(words, "dstports="+r.Ports.String())
	}
	if r.ICMP != nil {
		words = append(words, "icmptype="+strconv.Itoa(int(*r.ICMP)))
	}
	return words
}

// String is the range as upstream writes it, also for a single port.
func (p Ports) String() string { return fmt.Sprintf("%d-%d", p.From, p.To) }

// Format writes one rule a line.
func Format(rules []Rule) string {
	var b strings.Builder
	for _, r := range rules {
		b.WriteString(r.String() + "\n")
	}
	return b.String()
}

// QubesDB are the keys below /qubes-firewall/ADDRESS and their values for a
// qube's address of one family (spec/platform.md §5.2): rules of the other
// family are left out, and those that have expired.
func QubesDB(rules []Rule, v6 bool, now time.Time) map[string]string {
	keys := map[string]string{"policy": string(Drop)}
	for i, r := range rules {
		if r.Expired(now) || r.Net.IsValid() && r.Net.Addr().Is4() == v6 {
			continue
		}
		keys[fmt.Sprintf("%04d", i)] = strings.Join(append([]string{"action=" + string(r.Action)}, r.match()...), " ")
	}
	return keys
}

// clip shortens unchecked text for a message.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
