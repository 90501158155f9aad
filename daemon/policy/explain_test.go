package policy

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExplainAll(t *testing.T) {
	all := readExamples(t)
	s, err := ParseSystem(all.Systems["std"])
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	p, err := Load(write(t, root, map[string]string{"policy.d/30-a.policy": "# mine\nt.Svc +k work mail allow user=root autostart=no\n" +
		"t.Svc * work @tag:mail ask default_target=mail notify=yes\nt.Svc * work web deny notify=no\nt.Svc * work far allow\n"}))
	if err != nil {
		t.Fatal(err)
	}
	const questions = `{"source":"work","target":"mail","service":"t.Svc+k"}
{"source":"work","target":"mail","service":"t.Svc"}

{"source":"work","target":"web","service":"t.Svc+"}
{"source":"work","target":"far","service":"t.Svc+x"}
{"source":"work","target":"vault","service":"t.Svc"}
{"source":"work","target":"vault","service":"t/Svc"}
{"source":"nobody","target":"vault","service":"t.Svc"}
{"source":"work","target":"@tag:x","service":"t.Svc"}
{"source":
`
	var got bytes.Buffer
	if err := ExplainAll(p, nil, s, strings.NewReader(questions), &got); err != nil {
		t.Fatal(err)
	}
	want := `{"result":"allow","target":"mail","user":"root","autostart":false,"notify":false,"rule":"ROOT/policy.d/30-a.policy:2","targets":null,"default_target":null,"reason":null}
{"result":"ask","target":null,"user":null,"autostart":true,"notify":true,"rule":"ROOT/policy.d/30-a.policy:3","targets":["far","mail"],"default_target":"mail","reason":null}
{"result":"deny","target":null,"user":null,"autostart":null,"notify":false,"rule":"ROOT/policy.d/30-a.policy:4","targets":null,"default_target":null,"reason":"deny-rule"}
{"result":"allow","target":"relay","user":"DEFAULT","autostart":true,"notify":false,"rule":"ROOT/policy.d/30-a.policy:5","targets":null,"default_target":null,"reason":null,"service":"tunnel.SSH+far+t.Svc+x"}
{"result":"deny","target":null,"user":null,"autostart":null,"notify":true,"rule":null,"targets":null,"default_target":null,"reason":"no-rule"}
{"result":"error","target":null,"user":null,"autostart":null,"notify":false,"rule":null,"targets":null,"default_target":null,"reason":"\"t/Svc\" is not the name of a service"}
{"result":"error","target":null,"user":null,"autostart":null,"notify":false,"rule":null,"targets":null,"default_target":null,"reason":"unknown-source"}
{"result":"error","target":null,"user":null,"autostart":null,"notify":false,"rule":null,"targets":null,"default_target":null,"reason":"bad-target"}
{"result":"error","target":null,"user":null,"autostart":null,"notify":false,"rule":null,"targets":null,"default_target":null,"reason":"unexpected end of JSON input"}
`
	if d := cmp.Diff(want, strings.ReplaceAll(got.String(), root, "ROOT")); d != "" {
		t.Error(d)
	}

	_, problem := Load(write(t, t.TempDir(), map[string]string{"policy.d/30-a.policy": "t.Svc * work mail\n"}))
	got.Reset()
	if err := ExplainAll(nil, problem, s, strings.NewReader(`{"source":"work","target":"mail","service":"t.Svc"}`), &got); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.String(), `{"result":"syntax-error",`) ||
		!strings.Contains(got.String(), `30-a.policy:1",`) || !strings.Contains(got.String(), `"reason":"a rule has`) {
		t.Error(got.String())
	}
}

func TestFaults(t *testing.T) {
	for name, want := range map[string]string{"policy.d/30-A.policy": "error 30-A.policy:0", "policy.d/30-a.policy": "syntax-error 30-a.policy:2"} {
		files := map[string]string{"policy.d/20-B.policy": "", name: "# mine\nt.Svc * work mail\n"}
		if strings.Contains(name, "A") {
			delete(files, "policy.d/20-B.policy")
		}
		_, problem := Load(write(t, t.TempDir(), files))
		if problem == nil {
			t.Fatal(name)
		}
		e := Fault(problem)
		if got := string(e.Result) + " " + e.Rule[strings.LastIndexByte(e.Rule, '/')+1:]; got != want || e.Reason == "" {
			t.Errorf("%s: %s: %s", name, got, e.Reason)
		}
	}
	if e := Fault(fs.ErrPermission); e.Result != Failed || e.Rule != "" || e.Reason == "" {
		t.Errorf("%+v", e)
	}
}

func TestExplanationsForPeople(t *testing.T) {
	s, err := ParseSystem(readExamples(t).Systems["std"])
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	p, err := Load(write(t, root, map[string]string{"policy.d/30-a.policy": "t.Svc * work mail allow user=root autostart=no\nt.Svc * work @default ask default_target=mail\n"}))
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		"mail": "allow, to mail\nas user root\nonly a qube that runs already\nby ROOT/policy.d/30-a.policy:1\n    t.Svc * work mail allow user=root autostart=no",
		"":     "ask: mail\nmail is proposed\nby ROOT/policy.d/30-a.policy:2\n    t.Svc * work @default ask default_target=mail",
		"web":  "deny: no rule fits the call\nthe person is told",
		"@x":   "error: bad-target: this is not a target",
	} {
		got := Explain(p, s, Question{Source: "work", Target: target, Service: "t.Svc"}).String()
		if d := cmp.Diff(want, strings.ReplaceAll(got, root, "ROOT")); d != "" {
			t.Errorf("%q: %s", target, d)
		}
	}
}

// FuzzExplainAll reads any questions: each line but empty ones has an answer
// on a line.
func FuzzExplainAll(f *testing.F) {
	f.Add(`{"source":"work","target":"mail","service":"t.Svc+k"}` + "\n\n" + `{"source":"far","target":"@dispvm","service":"t.Svc","requested_source":"x"}`)
	f.Add("{\n[]\nnull\n\"\"\n1")
	f.Add(`{"source":"work","target":"","service":"q.A+"}` + "\r\n{}")
	s, err := ParseSystem(readExamples(f).Systems["std"])
	if err != nil {
		f.Fatal(err)
	}
	p, err := Load(write(f, f.TempDir(), map[string]string{"policy.d/30-a.policy": "t.Svc * work mail ask\nq.A * @anyvm @dispvm allow\n* * @anyvm @anyvm deny notify=no\n"}))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, questions string) {
		var b bytes.Buffer
		if err := ExplainAll(p, nil, s, strings.NewReader(questions), &b); err != nil {
			return // a line that is too long
		}
		asked := 0
		for line := range strings.SplitSeq(questions, "\n") {
			if strings.TrimSpace(line) != "" {
				asked++
			}
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if asked == 0 {
			lines = nil
		}
		if len(lines) != asked && b.Len() > 0 || b.Len() == 0 && asked != 0 {
			t.Fatalf("%d questions, answers %q", asked, b.String())
		}
		for _, line := range lines {
			var e struct{ Result Result }
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Result == "" {
				t.Fatalf("%q: %v", line, err)
			}
		}
	})
}
