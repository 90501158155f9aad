package qvm

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// policyExample is one of the specification's (spec/policy.md §13).
type policyExample struct {
	ID    string            `json:"id"`
	Files map[string]string `json:"files"`
	Call  struct {
		Service         string `json:"service"`
		Argument        string `json:"argument"`
		Source          string `json:"source"`
		Target          string `json:"target"`
		RequestedSource string `json:"requested_source"`
	} `json:"call"`
	System   string `json:"system_info"`
	Expected struct {
		Decision      string   `json:"decision"`
		Kind          string   `json:"kind"` // of an error
		User          *string  `json:"user"`
		Target        *string  `json:"target"`
		Autostart     *bool    `json:"autostart"`
		Notify        bool     `json:"notify"`
		Targets       []string `json:"targets"`
		DefaultTarget *string  `json:"default_target"`
		Service       string   `json:"service"`
		Reason        struct {
			Code string `json:"code"`
			File string `json:"file"`
			Line int    `json:"line"`
		} `json:"reason"`
	} `json:"expected"`
	Gap bool `json:"gap"`
}

// Every example of the specification decides as written, by the command line's
// batch. Where upstream has a weakness, package policy's tests say what we do.
func TestExamplesInBatch(t *testing.T) {
	raw, err := os.ReadFile("../../policy/testdata/examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Systems  map[string]json.RawMessage `json:"system_info"`
		Examples []policyExample            `json:"examples"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	info := filepath.Join(t.TempDir(), "info.json")
	if err := os.WriteFile(info, all.Systems["std"], 0o644); err != nil {
		t.Fatal(err)
	}
	decided := 0
	for _, x := range all.Examples {
		dir := t.TempDir()
		for name, text := range x.Files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		question, err := json.Marshal(map[string]string{"source": x.Call.Source, "target": x.Call.Target, "service": x.Call.Service + x.Call.Argument,
			"requested_source": x.Call.RequestedSource})
		if err != nil {
			t.Fatal(err)
		}
		var out, errOut bytes.Buffer
		status := Main(context.Background(), Streams{bytes.NewReader(question), &out, &errOut},
			[]string{"qvm-policy", "explain", "--policy", dir, "--system-info", info, "--batch"})
		if status != 0 || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%s: status %d: %s%s", x.ID, status, out.String(), errOut.String())
			continue
		}
		if x.Gap {
			continue
		}
		decided++
		var got struct {
			Result        string   `json:"result"`
			Target        *string  `json:"target"`
			User          *string  `json:"user"`
			Autostart     *bool    `json:"autostart"`
			Notify        bool     `json:"notify"`
			Rule          *string  `json:"rule"`
			Targets       []string `json:"targets"`
			DefaultTarget *string  `json:"default_target"`
			Reason        *string  `json:"reason"`
			Service       string   `json:"service"`
		}
		d := json.NewDecoder(bytes.NewReader(out.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		want := x.Expected
		if want.Decision == "error" {
			place := ""
			if want.Reason.File != "" {
				place = filepath.Join(dir, want.Reason.File) + ":" + string(rune('0'+want.Reason.Line))
			}
			result := "syntax-error"
			if want.Kind == "load" {
				result = "error"
			}
			if got.Result != result || got.Rule == nil || place != "" && *got.Rule != place || got.Reason == nil {
				t.Errorf("%s: %s", x.ID, out.String())
			}
			continue
		}
		same := func(a, b *string) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }
		ok := got.Result == want.Decision && same(got.Target, want.Target) && same(got.User, want.User) && got.Notify == want.Notify &&
			slices.Equal(got.Targets, want.Targets) && same(got.DefaultTarget, want.DefaultTarget) && got.Service == want.Service
		if want.Decision != "deny" {
			ok = ok && got.Autostart != nil && want.Autostart != nil && *got.Autostart == *want.Autostart && got.Rule != nil
		} else {
			ok = ok && got.Reason != nil && *got.Reason == want.Reason.Code
		}
		if !ok {
			t.Errorf("%s: %s, want %+v", x.ID, out.String(), want)
		}
	}
	if decided != 154 {
		t.Errorf("%d examples were decided", decided)
	}
}
