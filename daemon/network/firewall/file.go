package firewall

import (
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
)

// maxRules bounds what is read from a file: the Admin API's limit for a
// request allows fewer.
const maxRules = 10_000

// property is a key of a rule in the file.
type property struct {
	Name  string `xml:"name,attr"`
	Value string `xml:",chardata"`
}

type ruleFile struct {
	Properties []property `xml:"properties>property"`
	// Of version 1.
	Address string `xml:"address,attr,omitempty"`
	Netmask string `xml:"netmask,attr,omitempty"`
	Proto   string `xml:"proto,attr,omitempty"`
	Port    string `xml:"port,attr,omitempty"`
	ToPort  string `xml:"toport,attr,omitempty"`
	Expire  string `xml:"expire,attr,omitempty"`
}

type file struct {
	XMLName xml.Name `xml:"firewall"`
	Version string   `xml:"version,attr,omitempty"`
	// Of version 1.
	Policy string     `xml:"policy,attr,omitempty"`
	DNS    string     `xml:"dns,attr,omitempty"`
	ICMP   string     `xml:"icmp,attr,omitempty"`
	Rules  []ruleFile `xml:"rules>rule"`
	Old    []ruleFile `xml:"rule"`
}

// Marshal writes firewall.xml, version 2 (spec/platform.md §5.1).
func Marshal(rules []Rule) ([]byte, error) {
	f := file{Version: "2"}
	for _, r := range rules {
		var properties []property
		for word := range strings.SplitSeq(Rule{Action: r.Action, Expire: r.Expire, Proto: r.Proto, DNS: r.DNS, Ports: r.Ports, ICMP: r.ICMP}.String(), " ") {
			key, value, _ := strings.Cut(word, "=")
			properties = append(properties, property{key, value})
		}
		if _, value := r.destination(); value != "" {
			properties = append(properties, property{"dsthost", value})
		}
		if r.Comment != "" {
			properties = append(properties, property{"comment", r.Comment})
		}
		f.Rules = append(f.Rules, ruleFile{Properties: properties})
	}
	raw, err := xml.MarshalIndent(f, "", "  ")
	return append(raw, '\n'), err
}

// Unmarshal reads firewall.xml of either version.
func Unmarshal(raw []byte) ([]Rule, error) {
	var f file
	if err := xml.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("firewall.xml: %w", err)
	}
	if len(f.Rules)+len(f.Old) > maxRules {
		return nil, fmt.Errorf("firewall.xml: more than %d rules", maxRules)
	}
	read := f.version2
	if f.Version != "2" {
		read = f.version1
	}
	rules, err := read()
	if err != nil {
		return nil, fmt.Errorf("firewall.xml: %w", err)
	}
	return rules, nil
}

func (f file) version2() ([]Rule, error) {
	rules := make([]Rule, 0, len(f.Rules))
	for i, rf := range f.Rules {
		var r Rule
		for _, p := range rf.Properties {
			value := strings.TrimSpace(p.Value)
			if p.Name == "comment" {
				if strings.Trim(value, valueBytes+" ") != "" {
					return nil, &Error{i + 1, "a comment with bytes that are not allowed"}
				}
				r.Comment = value
				continue
			}
			if err := r.set(p.Name, value); err != nil {
				return nil, &Error{i + 1, err.(*Error).Why}
			}
		}
		if err := r.check(); err != nil {
			return nil, &Error{i + 1, err.(*Error).Why}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// version1 had a policy and exceptions from it.
func (f file) version1() ([]Rule, error) {
	decide := func(word string) Action {
		if word == "allow" || word == "" && f.Policy == "allow" {
			return Accept
		}
		return Drop
	}
	exception := Accept
	if decide("") == Accept {
		exception = Drop
	}
	rules := []Rule{{Action: decide(f.DNS), DNS: true}, {Action: decide(f.ICMP), Proto: ICMP}}
	for i, rf := range append(f.Old, f.Rules...) {
		r, err := rf.version1(exception)
		if err != nil {
			return nil, &Error{i + 1, err.(*Error).Why}
		}
		rules = append(rules, r)
	}
	if exception == Drop {
		rules = append(rules, Rule{Action: Accept})
	}
	return rules, nil
}

func (rf ruleFile) version1(action Action) (Rule, error) {
	r := Rule{Action: action}
	pairs := []property{}
	if rf.Netmask != "0" && rf.Address != "" {
		destination := rf.Address
		if _, isAddress := parseNet(rf.Address); isAddress && rf.Netmask != "" {
			destination += "/" + rf.Netmask
		}
		pairs = append(pairs, property{"dsthost", destination})
	}
	hasPort := rf.Port != "" && rf.Port != "0"
	switch {
	case rf.Proto != "" && rf.Proto != "any":
		pairs = append(pairs, property{"proto", rf.Proto})
	case hasPort:
		pairs = append(pairs, property{"proto", string(TCP)})
	}
	if hasPort {
		ports := rf.Port
		if rf.ToPort != "" {
			ports += "-" + rf.ToPort
		}
		pairs = append(pairs, property{"dstports", ports})
	}
	if n, err := strconv.ParseInt(rf.Expire, 10, 64); err == nil && n > 0 {
		pairs = append(pairs, property{"expire", rf.Expire})
	}
	for _, p := range pairs {
		if err := r.set(p.Name, p.Value); err != nil {
			return Rule{}, err
		}
	}
	return r, r.check()
}
