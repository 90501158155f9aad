package policy

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An example of testdata/examples.json: what upstream's own parser makes of a
// policy and a call (spec/policy.md §13).
type example struct {
	ID    string            `json:"id"`
	Files map[string]string `json:"files"`
	Call  struct {
		Service         string `json:"service"`
		Argument        string `json:"argument"`
		Source          string `json:"source"`
		Target          string `json:"target"`
		RequestedSource string `json:"requested_source"`
	} `json:"call"`
	System   string         `json:"system_info"`
	Expected map[string]any `json:"expected"`
	Gap      bool           `json:"gap"`
}

type examples struct {
	Systems  map[string]json.RawMessage `json:"system_info"`
	Examples []example                  `json:"examples"`
}

func readExamples(t testing.TB) examples {
	t.Helper()
	text, err := os.ReadFile("testdata/examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var e examples
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// write puts the files of a policy below a folder.
func write(t testing.TB, root string, files map[string]string) Dirs {
	t.Helper()
	for _, dir := range []string{"policy.d", "run", "legacy"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Dirs{Policy: []string{filepath.Join(root, "policy.d"), filepath.Join(root, "run")}, Legacy: filepath.Join(root, "legacy")}
}

// better are the decisions that differ from upstream's, one for each of its
// weaknesses.
var better = map[string]map[string]any{
	"P046": {"decision": "deny", "notify": true, "reason": "no-rule"},
	"P083": {"decision": "ask", "targets": []string{"@dispvm:dvm-work"}, "default_target": nil, "user": nil, "autostart": true, "notify": false},
	"P094": {"decision": "allow", "user": "DEFAULT", "target": "relay", "target_uuid": "uuid:10000000-0000-4000-8000-00000000000c", "autostart": true,
		"requested_target": "@default", "service": "tunnel.SSH+far+t.Svc+", "notify": false},
	"P138": {"decision": "deny", "notify": true, "reason": "loopback"},
	"P148": {"decision": "ask", "targets": []string{"@dispvm:dvm-online", "@dispvm:dvm-work", "deb-tpl", "disp7", "dvm-online", "dvm-work", "far", "far2",
		"mail", "relay", "sys-net", "vault", "web", "win"}, "default_target": nil, "user": nil, "autostart": true, "notify": false},
	"P151": {"decision": "error", "reason": "syntax-error"},
}

// TestExamples holds every example of the specification.
func TestExamples(t *testing.T) {
	all := readExamples(t)
	if len(all.Examples) != 160 {
		t.Fatalf("%d examples", len(all.Examples))
	}
	for _, e := range all.Examples {
		t.Run(e.ID, func(t *testing.T) {
			want := e.Expected
			if e.Gap {
				want = better[e.ID]
				if want == nil {
					t.Fatal("nothing is said of this weakness")
				}
			} else if reason, ok := want["reason"].(map[string]any); ok {
				if want["decision"] == "error" {
					want = map[string]any{"decision": "error", "reason": reason["code"]}
					if file, ok := reason["file"]; ok {
						want["file"], want["line"] = file, reason["line"]
					}
				} else {
					want["reason"] = reason["code"]
				}
			}
			got := outcome(t, e, all)
			if e.Gap && want["decision"] == "error" {
				delete(got, "file")
				delete(got, "line")
			}
			if d := cmp.Diff(asJSON(t, want), asJSON(t, got)); d != "" {
				t.Errorf("%v\n%+v\n%s", e.Files, e.Call, d)
			}
		})
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// outcome decides an example, in the form of its expectation.
func outcome(t *testing.T, e example, all examples) map[string]any {
	t.Helper()
	s, err := ParseSystem(all.Systems[e.System])
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	p, err := Load(write(t, root, e.Files))
	if err != nil {
		problems, ok := errors.AsType[Errors](err)
		if !ok {
			t.Fatal(err)
		}
		first := problems[0]
		if first.Line == 0 && strings.Contains(first.Error(), "is not the name of a policy's file") {
			return map[string]any{"decision": "error", "reason": "bad-file-name"}
		}
		file, err := filepath.Rel(root, first.File)
		if err != nil {
			t.Fatal(err)
		}
		return map[string]any{"decision": "error", "reason": "syntax-error", "file": file, "line": first.Line}
	}
	d := p.Decide(s, Request{e.Call.Service, e.Call.Argument, e.Call.Source, e.Call.Target, e.Call.RequestedSource})
	orNil := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	switch {
	case d.Action == Deny && d.Reason == BadTarget:
		return map[string]any{"decision": "error", "reason": "syntax-error"}
	case d.Action == Deny:
		return map[string]any{"decision": "deny", "notify": d.Notify, "reason": d.Reason}
	case d.Action == Ask:
		return map[string]any{"decision": "ask", "targets": d.Targets, "default_target": orNil(d.DefaultTarget), "user": orNil(d.User),
			"autostart": d.Autostart, "notify": d.Notify}
	}
	out := map[string]any{"decision": "allow", "user": d.User, "target": d.Target, "autostart": d.Autostart, "requested_target": d.Requested, "notify": d.Notify}
	if d.User == "" {
		out["user"] = "DEFAULT"
	}
	for key, value := range map[string]string{"target_uuid": d.TargetUUID, "service": d.Service, "policy_source": d.PolicySource} {
		if value != "" {
			out[key] = value
		}
	}
	return out
}

// Every weakness of upstream's that is mended here is one of the examples.
func TestEveryGapIsDecided(t *testing.T) {
	var gaps []string
	for _, e := range readExamples(t).Examples {
		if e.Gap {
			gaps = append(gaps, e.ID)
		}
	}
	for id := range better {
		if !slices.Contains(gaps, id) {
			t.Errorf("%s is no weakness of upstream's", id)
		}
	}
	if len(gaps) != len(better) {
		t.Errorf("gaps %v", gaps)
	}
}
