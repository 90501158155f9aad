package admin

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGranted(t *testing.T) {
	type features = map[string]string
	for name, c := range map[string]struct {
		was, asked, set features
		based           bool
		unset           []string
	}{
		"what a template has": {
			asked: features{"qrexec": "1", "gui": "0", "gui-emulated": "yes", "vmexec": "1", "qubes-firewall": "0", "os": "Linux", "os-version": "12.5",
				"os-distribution": "debian", "os-eol": "2028-06-30", "qubes-agent-version": "4.3", "anon-timezone": "1"},
			set: features{"qrexec": "1", "gui": "", "vmexec": "1", "qubes-firewall": "", "os": "Linux", "os-version": "12.5",
				"os-distribution": "debian", "os-eol": "2028-06-30", "qubes-agent-version": "4.3", "anon-timezone": "1"},
		},
		"what is set already is not the qube's to change": {
			was:   features{"qrexec": "", "gui": "1", "vmexec": ""},
			asked: features{"qrexec": "1", "gui": "0", "vmexec": "1"},
			set:   features{"vmexec": "1"},
		},
		"what nobody may ask for": {
			asked: features{"internal": "1", "servicevm": "1", "service.cups": "1", "os": "BeOS", "os-version": ".5", "os-eol": "2028-13-01", "os-distribution": "",
				"qubes-agent-version": "4", "anon-timezone": "0", "preload-dispvm-max": "5", "supported-rpc.": "1", "supported-rpc.x": "0", "boot-mode.name.a": "A", "boot-mode.active": "default", "prohibit-start": "ha"},
		},
		"a new list replaces the old one": {
			was:   features{"supported-rpc.a": "1", "supported-rpc.b": "1", "supported-service.c": "1", "supported-feature.d": "1", "x": "1"},
			asked: features{"supported-rpc.b": "1", "supported-rpc.e": "1", "supported-service.f": "0"},
			set:   features{"supported-rpc.b": "1", "supported-rpc.e": "1"},
			unset: []string{"supported-rpc.a"},
		},
		"of a qube with a template only its calls": {
			based: true,
			was:   features{"supported-rpc.a": "1"},
			asked: features{"qrexec": "1", "os": "Windows", "supported-rpc.b": "1", "supported-service.c": "1", "boot-mode.kernelopts.x": "quiet"},
			set:   features{"supported-rpc.b": "1"},
			unset: []string{"supported-rpc.a"},
		},
		"apparmor": {
			asked: features{"supported-service.apparmor": "1"},
			set:   features{"supported-service.apparmor": "1", "apparmor": "1"},
		},
		"apparmor, turned off by hand": {
			was:   features{"apparmor": ""},
			asked: features{"supported-service.apparmor": "1"},
			set:   features{"supported-service.apparmor": "1"},
		},
		"Windows": {
			was:   features{"timezone": ""},
			asked: features{"qrexec": "1", "os": "Windows"},
			set:   features{"qrexec": "1", "os": "Windows", "rpc-clipboard": "1", "stubdom-qrexec": "1", "no-monitor-layout": "1", "audio-model": "ich6"},
		},
		"boot modes": {
			was: features{"boot-mode.kernelopts.old": "x", "boot-mode.name.old": "Old", "boot-mode.active": "a"},
			asked: features{"boot-mode.kernelopts.a": "quiet a=1", "boot-mode.kernelopts.b": "", "boot-mode.name.a": "A", "boot-mode.default-user.b": "root",
				"boot-mode.default-user.a": "a b", "boot-mode.name.c": "C", "boot-mode.kernelopts.default": "x", "boot-mode.kernelopts.d.e": "x", "boot-mode.active": "b",
				"boot-mode.appvm-default": "b", "boot-mode.standalone-default": "c", "boot-mode.active.x": "a", "boot-mode.other": "a"},
			set: features{"boot-mode.kernelopts.a": "quiet a=1", "boot-mode.kernelopts.b": "", "boot-mode.name.a": "A", "boot-mode.default-user.b": "root",
				"boot-mode.appvm-default": "b"},
			unset: []string{"boot-mode.kernelopts.old", "boot-mode.name.old"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			set, unset := granted(c.was, c.based, c.asked)
			if c.set == nil {
				c.set = features{}
			}
			if diff := cmp.Diff(c.set, set); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.unset, unset); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRequested(t *testing.T) {
	const below = "/features-request/"
	for what, raw := range map[string]map[string]string{
		"another path":     {"/name": "1"},
		"no name":          {below: "1"},
		"a folder":         {below + "a/b": "1"},
		"a blank":          {below + "a b": "1"},
		"a quote":          {below + "os": "Linux'"},
		"a line":           {below + "os": "Linux\n"},
		"a zero":           {below + "os": "Linux\x00"},
		"not ASCII":        {below + "os": "Lin\xfcx"},
		"a long value":     {below + "os": strings.Repeat("a", maxRequestValue+1)},
		"one among others": {below + "os": "Linux", below + "gui": "1;"},
	} {
		if asked, err := requested(raw, below, requestBytes); err == nil {
			t.Errorf("%s became %q", what, asked)
		}
	}
	many := map[string]string{}
	for i := range maxRequests + 1 {
		many[below+strings.Repeat("a", i/1000+1)+string(rune('a'+i%26))+strings.Repeat("b", i%1000)] = "1"
	}
	if _, err := requested(many, below, requestBytes); len(many) > maxRequests && err == nil {
		t.Errorf("%d features were heard", len(many))
	}
	asked, err := requested(map[string]string{below + "os-version": "12.5", below + "supported-rpc.qubes.VMShell": "1"}, below, requestBytes)
	if err != nil || !maps.Equal(asked, map[string]string{"os-version": "12.5", "supported-rpc.qubes.VMShell": "1"}) {
		t.Errorf("%v, %v", asked, err)
	}
}

func FuzzGranted(f *testing.F) {
	f.Add("os", "Linux", "supported-rpc.qubes.VMShell", "1", false)
	f.Add("boot-mode.kernelopts.a", "quiet", "boot-mode.active", "a", false)
	f.Add("qubes-agent-version", "4.", "os-version", "", true)
	f.Add("supported-service.", "1", "os-eol", "2028-06-31", false)
	f.Fuzz(func(t *testing.T, a, x, b, y string, based bool) {
		const below = "/features-request/"
		asked, err := requested(map[string]string{below + a: x, below + b: y}, below, requestBytes)
		if err != nil {
			return
		}
		was := map[string]string{"qrexec": "", "supported-rpc.old": "1", "supported-service.old": "1", "boot-mode.kernelopts.old": "1", "internal": "1", "service.cups": "1"}
		set, unset := granted(was, based, asked)
		for name := range set {
			if _, chosen := was[name]; chosen && !strings.HasPrefix(name, "supported-") && !strings.HasPrefix(name, bootMode) {
				t.Errorf("%s was changed", name)
			}
			if based && !strings.HasPrefix(name, "supported-rpc.") {
				t.Errorf("a qube with a template has set %s", name)
			}
			if strings.HasPrefix(name, "service.") || name == "internal" || strings.Trim(name+set[name], nameBytes+",= ") != "" {
				t.Errorf("%q=%q was set", name, set[name])
			}
		}
		for _, name := range unset {
			if !strings.HasSuffix(name, ".old") || based && !strings.HasPrefix(name, "supported-rpc.") {
				t.Errorf("%s was unset", name)
			}
		}
	})
}
