package admin

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Bounds of what a qube says of itself.
const (
	maxRequests     = 1024 // features
	maxRequestValue = 1024 // bytes
	maxBootModes    = 64
)

const (
	letters      = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits       = "0123456789"
	nameBytes    = letters + digits + "_.-"
	requestBytes = letters + digits + ".,_= -"
)

const (
	qrexecFeature = "qrexec"
	windows       = "Windows"
	linux         = "Linux"
)

// requested reads what a qube wrote below a path of its database: hostile
// bytes. One name or value that is not allowed spoils all.
func requested(raw map[string]string, prefix, allowed string) (map[string]string, error) {
	if len(raw) > maxRequests {
		return nil, fmt.Errorf("more than %d features", maxRequests)
	}
	asked := map[string]string{}
	for _, path := range slices.Sorted(maps.Keys(raw)) {
		name, ok := strings.CutPrefix(path, prefix)
		if !ok || name == "" || strings.Trim(name, nameBytes) != "" {
			return nil, errors.New("a feature whose name is not allowed")
		}
		value := raw[path]
		if len(value) > maxRequestValue || strings.Trim(value, allowed) != "" {
			return nil, fmt.Errorf("the feature %s with a value that is not allowed", name)
		}
		asked[name] = value
	}
	return asked, nil
}

// granted is what follows from a qube's request for features, when it has
// those of was: what is set and what is unset. Of a qube that is based on a
// template only the calls that it supports are heard: the rest is the
// template's (spec/services.md §9, spec/admin-api.md §5.4).
func granted(was map[string]string, based bool, asked map[string]string) (set map[string]string, unset []string) {
	set = map[string]string{}
	if !based {
		for name, value := range asked {
			if v, ok := requestable(was, name, value); ok {
				set[name] = v
			}
		}
		unset = append(unset, bootModes(was, asked, set)...)
	}
	for _, kind := range []string{"supported-service.", "supported-feature.", "supported-rpc."} {
		if !based || kind == "supported-rpc." {
			unset = append(unset, supported(kind, was, asked, set)...)
		}
	}
	if set["supported-service.apparmor"] != "" {
		suggest(was, set, "apparmor", "1")
	}
	if set["os"] == windows && set[qrexecFeature] != "" {
		for _, f := range []string{"rpc-clipboard", "stubdom-qrexec", "no-monitor-layout"} {
			suggest(was, set, f, "1")
		}
		suggest(was, set, "audio-model", "ich6")
		suggest(was, set, "timezone", "localtime")
	}
	slices.Sort(unset)
	return set, unset
}

// suggest sets a feature that nobody has chosen.
func suggest(was, set map[string]string, name, value string) {
	if _, chosen := was[name]; !chosen {
		set[name] = value
	}
}

// supported takes a list of what the qube supports: a new one, unless it is
// empty, replaces the old one.
func supported(kind string, was, asked, set map[string]string) (unset []string) {
	any := false
	for name, value := range asked {
		if strings.HasPrefix(name, kind) && name != kind && value == "1" {
			set[name], any = "1", true
		}
	}
	if any {
		unset = dropped(kind, was, set)
	}
	return unset
}

// dropped are the features below a prefix that are no more.
func dropped(prefix string, was, set map[string]string) (gone []string) {
	for name := range was {
		if _, again := set[name]; strings.HasPrefix(name, prefix) && !again {
			gone = append(gone, name)
		}
	}
	return gone
}

const bootMode = "boot-mode."

// bootModes takes the boot modes that the qube offers: an id each with kernel
// options, perhaps a name and a user, and which of them are chosen when
// nothing else is (spec/admin-api.md §5.2). New ones replace the old ones.
func bootModes(was, asked, set map[string]string) (unset []string) {
	ids := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		id, ok := strings.CutPrefix(name, bootMode+"kernelopts.")
		if ok && isBootMode(id) && len(ids) < maxBootModes {
			ids[id] = true
			set[name] = asked[name]
		}
	}
	if len(ids) == 0 {
		return nil
	}
	for name, value := range asked {
		rest, ok := strings.CutPrefix(name, bootMode)
		if !ok {
			continue
		}
		switch what, id, _ := strings.Cut(rest, "."); what {
		case "name", "default-user":
			if ids[id] && value != "" && (what == "name" || strings.Trim(value, nameBytes) == "") {
				set[name] = value
			}
		case "active", "appvm-default", "standalone-default":
			if rest != what || !ids[value] && value != "default" {
				continue
			}
			if what == "active" {
				suggest(was, set, name, value)
			} else {
				set[name] = value
			}
		}
	}
	for _, what := range []string{"kernelopts.", "name.", "default-user."} {
		unset = append(unset, dropped(bootMode+what, was, set)...)
	}
	return unset
}

func isBootMode(id string) bool {
	return id != "" && id != "default" && strings.Trim(id, letters+digits+"_-") == ""
}

// requestable is the value of a single feature that a qube without a template
// may ask for.
func requestable(was map[string]string, name, value string) (string, bool) {
	flag := map[string]string{"0": "", "1": "1"}
	switch name {
	case qrexecFeature, "gui", "gui-emulated":
		_, chosen := was[name]
		v, ok := flag[value]
		return v, ok && !chosen
	case "qubes-firewall", "vmexec":
		v, ok := flag[value]
		return v, ok
	case "os":
		return value, value == windows || value == linux
	case "os-distribution", "os-distribution-like":
		return value, value != "" && strings.Trim(value, requestBytes) == ""
	case "os-version":
		return value, value != "" && strings.Trim(value, digits+".-") == "" && strings.IndexByte(digits, value[0]) >= 0
	case "os-eol":
		_, err := time.Parse(time.DateOnly, value)
		return value, err == nil
	case "qubes-agent-version":
		major, minor, ok := strings.Cut(value, ".")
		return value, ok && isShortNumber(major) && isShortNumber(minor)
	case "anon-timezone":
		return "1", value == "1"
	}
	return "", false
}

func isShortNumber(s string) bool {
	return s != "" && len(s) <= 3 && strings.Trim(s, digits) == ""
}

// pythonDict is how upstream's events write a table of words.
func pythonDict(m map[string]string) string {
	var words []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		words = append(words, "'"+key+"': '"+m[key]+"'")
	}
	return "{" + strings.Join(words, ", ") + "}"
}
