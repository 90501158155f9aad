package qvm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"cubicle/daemon/network/firewall"
)

type firewallTool struct {
	verbosity
	Reload bool     `short:"r" help:"Apply the rules again, also when they are the same."`
	Raw    bool     `help:"With list: the rules as they are stored."`
	RuleNo *int     `name:"rule-no" placeholder:"N" help:"With del: number of the rule."`
	Before string   `placeholder:"N" help:"With add: number of the rule to stand before (default: end)."`
	VMName string   `arg:"" name:"VMNAME" help:"Name of the qube." complete:"qube"`
	Action string   `arg:"" optional:"" name:"ACTION" enum:"list,add,del,reset" default:"list" help:"list, add, del or reset."`
	Rule   []string `arg:"" optional:"" name:"RULE" help:"accept or drop, then KEY=VALUE words." complete:"rule"`
}

func (f *firewallTool) run(ctx context.Context, e *env) error {
	if _, err := e.one(ctx, f.VMName); err != nil {
		return err
	}
	switch {
	case f.RuleNo != nil && f.Action != "del":
		return usage("--rule-no is for del")
	case f.Before != "" && f.Action != "add":
		return usage("--before is for add")
	case len(f.Rule) > 0 && (f.Action == "list" || f.Action == "reset"):
		return usage("%s takes no RULE", f.Action)
	}
	text, err := e.Call(ctx, f.VMName, "admin.vm.firewall.Get", "", nil)
	if err != nil {
		return err
	}
	var rules []firewall.Rule
	if text != "" {
		if rules, err = firewall.Parse(text); err != nil {
			return fmt.Errorf("the rules of %s: %w", f.VMName, err)
		}
	}
	switch f.Action {
	case "list":
		err = f.list(e, text, rules)
	case "add":
		err = f.add(ctx, e, rules)
	case "del":
		err = f.del(ctx, e, rules)
	case "reset":
		err = f.set(ctx, e, firewall.Default())
	}
	if err != nil || !f.Reload {
		return err
	}
	_, err = e.Call(ctx, f.VMName, "admin.vm.firewall.Reload", "", nil)
	return err
}

func (f *firewallTool) set(ctx context.Context, e *env, rules []firewall.Rule) error {
	if len(rules) == 0 {
		// Rules that are empty are no rules; this is what they mean.
		rules = []firewall.Rule{{Action: firewall.Drop}}
	}
	_, err := e.Call(ctx, f.VMName, "admin.vm.firewall.Set", "", []byte(firewall.Format(rules)))
	return err
}

func (f *firewallTool) list(e *env, text string, rules []firewall.Rule) error {
	if f.Raw {
		fmt.Fprint(e.Out, text)
		return nil
	}
	t := table{head: []string{"NO", "ACTION", "HOST", "PROTOCOL", "PORT(S)", "SPECIAL TARGET", "ICMP TYPE", "EXPIRE", "COMMENT"}}
	t.paint = func(row, column int) string {
		if column == 1 {
			return map[firewall.Action]string{firewall.Accept: "32", firewall.Drop: "31"}[rules[row].Action]
		}
		return ""
	}
	for i, r := range rules {
		cells := []string{strconv.Itoa(i), string(r.Action), r.Host, string(r.Proto), "", "", "", "", r.Comment}
		if r.Net.IsValid() {
			cells[2] = r.Net.String()
		}
		if r.Ports != nil {
			cells[4] = r.Ports.String()
			if r.Ports.From == r.Ports.To {
				cells[4] = strconv.Itoa(int(r.Ports.From))
			}
		}
		if r.DNS {
			cells[5] = "dns"
		}
		if r.ICMP != nil {
			cells[6] = strconv.Itoa(int(*r.ICMP))
		}
		if r.Expire != 0 {
			cells[7] = time.Unix(r.Expire, 0).Format("2006-01-02 15:04:05")
		}
		for j := range cells {
			if cells[j] == "" {
				cells[j] = "-"
			}
		}
		t.rows = append(t.rows, cells)
	}
	return t.write(e.Out)
}

func (f *firewallTool) add(ctx context.Context, e *env, rules []firewall.Rule) error {
	r, err := parseRule(f.Rule, time.Now())
	if err != nil {
		return err
	}
	at := len(rules)
	if f.Before != "" && f.Before != "end" {
		if at, err = strconv.Atoi(f.Before); err != nil || at < 0 || at > len(rules) {
			return usage("--before: there is no rule %s", f.Before)
		}
	}
	for i, o := range rules[:at] {
		if (firewall.Rule{Action: o.Action}).String() == o.String() {
			e.say("%s: rule %d stands before it and decides for everything: see --before", e.prog, i)
			break
		}
	}
	return f.set(ctx, e, slices.Insert(rules, at, r))
}

func (f *firewallTool) del(ctx context.Context, e *env, rules []firewall.Rule) error {
	at := -1
	switch {
	case (f.RuleNo == nil) == (len(f.Rule) == 0):
		return usage("del needs either --rule-no or a RULE")
	case f.RuleNo != nil:
		if at = *f.RuleNo; at < 0 || at >= len(rules) {
			return fmt.Errorf("there is no rule %d", at)
		}
	default:
		r, err := parseRule(f.Rule, time.Now())
		if err != nil {
			return err
		}
		if at = slices.IndexFunc(rules, func(o firewall.Rule) bool { return o.String() == r.String() }); at < 0 {
			return fmt.Errorf("there is no such rule: %s", r)
		}
	}
	return f.set(ctx, e, slices.Delete(rules, at, at+1))
}

// parseRule reads a rule as people write it: an action, then KEY=VALUE words,
// or a host, a protocol and ports without their names.
func parseRule(words []string, now time.Time) (firewall.Rule, error) {
	bare := []string{"action", "dsthost", "proto", "dstports"}
	var pairs []string
	proto := ""
	for i, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			if len(bare) == 0 {
				return firewall.Rule{}, usage("%q is not KEY=VALUE", w)
			}
			key, value, bare = bare[0], w, bare[1:]
			if key == "dstports" && proto == "icmp" {
				key = "icmptype"
			}
		}
		switch key {
		case "comment": // the rest: it may have spaces
			pairs = append(pairs, strings.Join(append([]string{"comment=" + value}, words[i+1:]...), " "))
		case "proto":
			proto = value
			pairs = append(pairs, "proto="+value)
		case "expire":
			until, err := expiry(value, now)
			if err != nil {
				return firewall.Rule{}, err
			}
			pairs = append(pairs, "expire="+until)
		case "dst4", "dst6", "dsthost", "dstname":
			pairs = append(pairs, destination(key, value))
		default:
			pairs = append(pairs, key+"="+value)
		}
		if key == "comment" {
			break
		}
	}
	r, err := firewall.ParseRule(strings.Join(pairs, " "))
	if wrong, ok := errors.AsType[*firewall.Error](err); ok {
		return r, usage("%s", wrong.Why)
	}
	return r, err
}

// expiry turns +SECONDS into seconds since 1970.
func expiry(value string, now time.Time) (string, error) {
	after, ok := strings.CutPrefix(value, "+")
	if !ok {
		return value, nil
	}
	seconds, err := strconv.ParseInt(after, 10, 40)
	if err != nil || seconds < 0 {
		return "", usage("expire=+SECONDS needs a number, not %q", after)
	}
	return strconv.FormatInt(now.Unix()+seconds, 10), nil
}

// destination names a destination by what it is: an address of a family, or a
// host.
func destination(key, value string) string {
	address, _, _ := strings.Cut(value, "/")
	addr, err := netip.ParseAddr(address)
	switch {
	case err != nil || key == "dst4" || key == "dst6":
	case addr.Is4():
		key = "dst4"
	default:
		key = "dst6"
	}
	return key + "=" + value
}
