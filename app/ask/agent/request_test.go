package agent

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cubicle/app/dom0"
)

func TestARequestIsRead(t *testing.T) {
	got, err := ParseRequest([]byte(`{"source": "work", "service": "qubes.Filecopy", "argument": "+",
		"targets": ["vault", "@dispvm:dvm", "dom0"], "default_target": "vault",
		"icons": {"work": "appvm-blue", "@dispvm:dvm": "appvm-red"}, "rule": "90-default.policy:12", "later": [1]}`))
	want := Request{Source: "work", Service: "qubes.Filecopy", Targets: []string{"vault", "@dispvm:dvm", "dom0"}, Default: "vault",
		Icons: map[string]string{"work": "appvm-blue", "@dispvm:dvm": "appvm-red"}, Rule: "90-default.policy:12"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

// What a qube chose is shown in letters of names, and what nobody could have
// chosen is not offered.
func TestARequestIsCleaned(t *testing.T) {
	got, err := ParseRequest([]byte(`{"source": "work", "service": "<b>x\u202e\n", "argument": "+a b+\u0000é",
		"targets": ["vault", "vault", "@dispvm", "@dispvm:", "@dispvm:-x", "../x", "", "@anyvm", "none"], "default_target": "../x", "rule": "/etc/qubes/x\n\u202ey.policy:3: q.S \t\t* @anyvm"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got.Service != "_b_x____" || got.Argument != "a_b+___" || got.Rule != "x y.policy:3: q.S * @anyvm" {
		t.Errorf("service %q, argument %q, rule %q", got.Service, got.Argument, got.Rule)
	}
	if !slices.Equal(got.Targets, []string{"vault"}) || got.Default != "" {
		t.Errorf("targets %q, default %q", got.Targets, got.Default)
	}
}

func TestWhatIsNoRequestIsRefused(t *testing.T) {
	many, err := json.Marshal(slices.Repeat([]string{"a"}, maxTargets+1))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(source, service, targets string) string {
		return fmt.Sprintf(`{"source": %q, "service": %q, "targets": %s}`, source, service, targets)
	}
	for _, bad := range []string{
		``, `null`, `[]`, `"x"`, `{}`, `{"source": 1}`,
		ask("", "q.S", `["a"]`), ask("wo rk", "q.S", `["a"]`), ask(strings.Repeat("a", 32), "q.S", `["a"]`),
		ask("work", "", `["a"]`), ask("work", strings.Repeat("s", maxCall+1), `["a"]`),
		ask("work", "q.S", `[]`), ask("work", "q.S", `["@dispvm"]`), ask("work", "q.S", string(many)),
		ask("work", "q.S", `["a"]`) + ask("work", "q.S", `["a"]`), ask("work", "q.S", `["a"]`) + "x",
		ask("work", "q.S", `["a"]`) + strings.Repeat(" ", maxJSON),
		`{"source": "work", "service": "q.S", "targets": [[["a"]]]}`,
	} {
		if r, err := ParseRequest([]byte(bad)); err == nil {
			t.Errorf("%.80s became %+v", bad, r)
		}
	}
}

func TestNewsAreReadAndCleaned(t *testing.T) {
	got, err := ParseNews([]byte(`{"resolution": "deny", "service": "q.S", "argument": "+a", "source": "work", "target": "@default"}`))
	if want := (News{Denied, "q.S", "a", "work", "@default", ""}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ParseNews([]byte(`{"resolution": "allow", "service": "q.S", "source": "work", "target": "<a href='x'>` + strings.Repeat("x", 99) + `"}`))
	if err != nil || len(got.Target) != maxTarget || strings.ContainsAny(got.Target, "<>' ") {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ParseNews([]byte(`{"resolution": "broken", "source": "dom0", "rule": "/p/30-user.policy:3: wrong"}`))
	if want := (News{Resolution: Broken, Fault: "30-user.policy:3: wrong"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{``, `{"resolution": "maybe", "service": "q.S", "source": "work"}`, `{"resolution": "deny", "service": "q.S", "source": "a b"}`} {
		if n, err := ParseNews([]byte(bad)); err == nil {
			t.Errorf("%s became %+v", bad, n)
		}
	}
}

// FuzzParse: whatever arrives, what is shown are the letters of names, and
// what may be answered are names.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"policy.Ask dom0 name dom0\x00" + `{"source": "work", "service": "qubes.Filecopy", "argument": "+x", "targets": ["vault", "@dispvm:dvm"], "default_target": "vault", "icons": {"vault": "appvm-red"}, "rule": "a:1"}`,
		"policy.Ask dom0\x00" + `{"source": "work", "service": "q.\u0000", "targets": ["a", "@dispvm"]}`,
		"policy.Notify dom0 name dom0\x00" + `{"resolution": "deny", "service": "q.S", "argument": "+", "source": "work", "target": "\u202e<b>"}`,
		"policy.Notify+ dom0\x00{}", "policy.Ask\x00", "\x00", "policy.Ask work name dom0\x00{}",
	} {
		f.Add([]byte(seed))
	}
	plain := func(t *testing.T, text, others string) {
		if keep(text, others) != text {
			t.Errorf("%q is shown", text)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		service, body, err := splitHeader(raw)
		if err != nil {
			return
		}
		if service == "policy.Notify" {
			n, err := ParseNews(body)
			if err != nil {
				return
			}
			plain(t, n.Service, "_-.")
			plain(t, n.Argument, "_-.+")
			plain(t, n.Source, "_-.")
			plain(t, n.Target, "_-.@:")
			return
		}
		r, err := ParseRequest(body)
		if err != nil {
			return
		}
		plain(t, r.Service, "_-.")
		plain(t, r.Argument, "_-.+")
		plain(t, r.Source, "_-.")
		if len(r.Targets) == 0 || r.Default != "" && !slices.Contains(r.Targets, r.Default) {
			t.Errorf("the default %q of %q", r.Default, r.Targets)
		}
		for _, target := range r.Targets {
			if _, err := dom0.ParseName(strings.TrimPrefix(target, DispVM)); err != nil {
				t.Errorf("%q is offered", target)
			}
		}
	})
}
