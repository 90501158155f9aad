// Package agent is the policy agent without its windows: dom0 asks it over a
// socket whether a call may be made, and tells it of calls that were refused
// or made (spec/qrexec.md §11). Server speaks that protocol, Queue puts one
// question after the other, Dialogs has a process for each of them, and
// Notices merges what people are told.
//
// What arrives is dom0's, but a qube chose the service, the argument and the
// moment: ParseRequest and ParseNews are the only ways in, and no text that
// they return holds anything but the letters of names.
package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"cubicle/app/dom0"
)

// Request is a question: may Source call Service with Argument, and of whom?
type Request struct {
	Source   string   // a qube's name
	Service  string   // letters, digits, '_', '-', '.', and '_' for all else
	Argument string   // without its '+', and with '+' besides; empty: none
	Targets  []string // names or "@dispvm:" and a name, each once; never empty
	Default  string   // one of Targets, or empty
	// Icons are upstream's names of pictures by target and source, such as
	// "appvm-red"; bases of disposables stand there as "@dispvm:NAME".
	Icons map[string]string
	Rule  string // what the policy says: "FILE:LINE: TEXT", or empty
}

// Resolution is what became of a call that people are told of.
type Resolution string

// The resolutions.
const (
	Allowed Resolution = "allow"
	Denied  Resolution = "deny"
	Failed  Resolution = "fail"
	// Broken is of our own: the policy is wrong and every call is denied.
	Broken Resolution = "broken"
)

// News is a call that was made, refused, or could not be made.
type News struct {
	Resolution Resolution
	Service    string
	Argument   string // without its '+'
	Source     string // a qube's name
	Target     string // as the call named it: maybe no qube's name, maybe empty
	Fault      string // of Broken, which has nothing else: "FILE:LINE: WHY"
}

// Bounds of what is read. maxCall is that of qrexec's own messages.
const (
	maxHeader  = 512
	maxJSON    = 1 << 20
	maxCall    = 65000
	maxTargets = 4096
	maxRule    = 200
	maxTarget  = 64
)

// DispVM begins a target that is a new disposable of a base.
const DispVM = "@dispvm:"

// ParseRequest checks the JSON of policy.Ask. Targets that nobody could choose
// are left out.
func ParseRequest(raw []byte) (Request, error) {
	var wire struct {
		Source   string            `json:"source"`
		Service  string            `json:"service"`
		Argument string            `json:"argument"`
		Targets  []string          `json:"targets"`
		Default  string            `json:"default_target"`
		Icons    map[string]string `json:"icons"`
		Rule     string            `json:"rule"`
	}
	if err := decode(raw, &wire); err != nil {
		return Request{}, fmt.Errorf("policy.Ask: %w", err)
	}
	r := Request{Icons: wire.Icons, Rule: rule(wire.Rule)}
	var err error
	if r.Source, r.Service, r.Argument, err = call(wire.Source, wire.Service, wire.Argument); err != nil {
		return Request{}, fmt.Errorf("policy.Ask: %w", err)
	}
	if len(wire.Targets) > maxTargets {
		return Request{}, fmt.Errorf("policy.Ask: %d targets, more than %d", len(wire.Targets), maxTargets)
	}
	seen := make(map[string]bool, len(wire.Targets))
	for _, t := range wire.Targets {
		if _, err := dom0.ParseName(strings.TrimPrefix(t, DispVM)); err == nil && !seen[t] {
			seen[t] = true
			r.Targets = append(r.Targets, t)
		}
	}
	if len(r.Targets) == 0 {
		return Request{}, errors.New("policy.Ask: nobody to choose from")
	}
	if seen[wire.Default] {
		r.Default = wire.Default
	}
	return r, nil
}

// ParseNews checks the JSON of policy.Notify.
func ParseNews(raw []byte) (News, error) {
	var wire struct {
		Resolution string `json:"resolution"`
		Service    string `json:"service"`
		Argument   string `json:"argument"`
		Source     string `json:"source"`
		Target     string `json:"target"`
		Rule       string `json:"rule"`
	}
	if err := decode(raw, &wire); err != nil {
		return News{}, fmt.Errorf("policy.Notify: %w", err)
	}
	if Resolution(wire.Resolution) == Broken {
		return News{Resolution: Broken, Fault: rule(wire.Rule)}, nil
	}
	n := News{Resolution: Resolution(wire.Resolution)}
	if !slices.Contains([]Resolution{Allowed, Denied, Failed}, n.Resolution) {
		return News{}, fmt.Errorf("policy.Notify: no resolution %.20q", wire.Resolution)
	}
	var err error
	if n.Source, n.Service, n.Argument, err = call(wire.Source, wire.Service, wire.Argument); err != nil {
		return News{}, fmt.Errorf("policy.Notify: %w", err)
	}
	if n.Target = wire.Target; len(n.Target) > maxTarget {
		n.Target = n.Target[:maxTarget]
	}
	n.Target = keep(n.Target, "_-.@:")
	return n, nil
}

// call checks what a call is made of.
func call(source, service, argument string) (s, v, a string, err error) {
	name, err := dom0.ParseName(source)
	switch {
	case err != nil:
		return "", "", "", fmt.Errorf("source: %w", err)
	case service == "":
		return "", "", "", errors.New("the service has no name")
	case len(service)+len(argument) > maxCall:
		return "", "", "", fmt.Errorf("service and argument have %d bytes, more than %d", len(service)+len(argument), maxCall)
	}
	return string(name), keep(service, "_-."), keep(strings.TrimPrefix(argument, "+"), "_-.+"), nil
}

// keep replaces every byte that is no letter or digit and not in others, as
// qrexecd does with the names in a call (spec/qrexec.md §9).
func keep(text, others string) string {
	out := []byte(text)
	for i, c := range out {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(others, c) < 0 {
			out[i] = '_'
		}
	}
	return string(out)
}

// rule makes one short line of what dom0 says of a rule: "FILE:LINE: TEXT".
func rule(text string) string {
	if text == "" {
		return ""
	}
	place, text, _ := strings.Cut(text, ": ")
	text = strings.Join(strings.Fields(path.Base(place)+": "+text), " ")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
	return strings.TrimSuffix(text[:min(len(text), maxRule)], ":")
}

// Shorten cuts a name out in its middle if it has more letters than most.
func Shorten(name string, most int) string {
	if len(name) <= most {
		return name
	}
	return name[:most/2] + "…" + name[len(name)-most/2:]
}

// decode reads one JSON object and nothing behind it.
func decode(raw []byte, into any) error {
	if len(raw) > maxJSON {
		return fmt.Errorf("more than %d bytes", maxJSON)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("JSON: something follows the object")
	}
	return nil
}
