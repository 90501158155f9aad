package qvm

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cubicle/daemon/admin"
	"cubicle/daemon/admin/client"
	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/paths"
	"cubicle/daemon/policy"
	"cubicle/daemon/policy/defaults"
	"cubicle/daemon/qrexec/wire"
)

// The tools are the test program itself, called by their names.
func TestMain(m *testing.M) {
	commands := map[string]func(){}
	names := []string{"qvm"}
	for _, r := range tools() {
		names = append(names, r.name)
	}
	for _, name := range names {
		commands[name] = func() {
			os.Exit(Main(context.Background(), Streams{os.Stdin, os.Stdout, os.Stderr}, append([]string{name}, os.Args[1:]...)))
		}
	}
	testscript.Main(m, commands)
}

// listen listens on a socket of a root folder that may be too deep for a
// socket's address.
func listen(root paths.Root, name string) (net.Listener, error) {
	if err := os.MkdirAll(root.Run(), 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(root.Run())
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name))
}

// TestScripts runs the tools against our own qubesd.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("QVM_UPDATE") != "",
		Setup: func(e *testscript.Env) error {
			root, err := paths.New(filepath.Join(e.WorkDir, "root"))
			if err != nil {
				return err
			}
			sys, err := coretest.Start(coretest.New(), filepath.Join(e.WorkDir, "system"), core.WallClock{})
			if err != nil {
				return err
			}
			if err := sys.Done(sys.CreateTemplate("debian-12", "debian-12")); err != nil {
				return err
			}
			l, err := listen(root, "qubesd.sock")
			if err != nil {
				return err
			}
			s := admin.New(sys.Core, slog.New(slog.DiscardHandler))
			if err := defaults.Lay(root, os.Getegid()); err != nil {
				return err
			}
			kept, runtime, legacy := root.PolicyFiles()
			s.PolicyFiles = policy.Dirs{Policy: []string{kept, runtime}, Legacy: legacy}
			done := make(chan error, 1)
			go func() { done <- s.Serve(l, admin.Public) }()
			e.Defer(func() {
				s.Close()
				sys.Close()
				if err := <-done; err != nil {
					t.Error(err)
				}
				for _, b := range sys.World.Breaches() {
					t.Error(b)
				}
			})
			e.Setenv(paths.Env, string(root))
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
	})
}

func TestAQubeCannotSteerTheTerminal(t *testing.T) {
	var b bytes.Buffer
	text := "plain\ttext\n\x1b]0;title\x07\x9b31m é\x7f"
	if n, err := wire.NewEscapeFilter(&b).Write([]byte(text)); n != len(text) || err != nil {
		t.Error(n, err)
	}
	if want := "plain\ttext\n_]0;title\x07_31m ___"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	if got := printable("a\n\tb\x1b[2J\u009b"); got != "a\n\tb_[2J_" {
		t.Errorf("%q", got)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1024": 1024, "10GiB": 10 << 30, "10G": 10 << 30, "3gib": 3 << 30, "2MB": 2_000_000, "5 KiB": 5 << 10, "7B": 7,
		"": -1, "G": -1, "-1": -1, "1.5G": -1, "1X": -1, "99999999999T": -1, "1 0": -1, "007": -1, "1GG": -1,
	} {
		got, err := parseSize(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d (%v), want %d", text, got, err, want)
		}
	}
}

// Upstream's tools understand these command lines.
func TestCommandLinesAreUpstreams(t *testing.T) {
	for _, test := range []struct{ line, want []string }{
		{[]string{"qvm-ls", "--tags", "one", "two", "--raw-l"}, []string{"--tags=one", "--tags=two", "--raw-list"}},
		{[]string{"qvm-ls", "-Oname,memory", "work"}, []string{"--fields=name,memory", "work"}},
		{[]string{"qvm-ls", "-O", "name", "--no-spinner"}, []string{"--fields=name", "--no-spinner"}},
		{[]string{"qvm-create", "-lred", "--prop=memory=1", "-C", "TemplateVM", "x"}, []string{"--label=red", "--prop=memory=1", "--class=TemplateVM", "x"}},
		{[]string{"qvm-run", "-p", "work", "ls", "-la"}, []string{"-p", "--", "work", "ls", "-la"}},
		{[]string{"qvm-run", "work", "-p", "ls", "--", "-p"}, []string{"-p", "--", "work", "ls", "--", "-p"}},
		{[]string{"qvm-run", "--all", "ls", "-la"}, []string{"--all", "--", "ls", "-la"}},
		{[]string{"qvm-run", "-q", "-a", "--service", "--dispvm=base", "--", "qubes.StartApp+x"}, []string{"-q", "-a", "--service", "--dispvm=base", "--", "qubes.StartApp+x"}},
		{[]string{"qvm-run", "--dispvm", "--service", "x"}, []string{"--dispvm=@default", "--service", "--", "x"}},
		{[]string{"qvm-run", "--dispvm", "base", "xterm", "-e", "ls"}, []string{"--dispvm=base", "--", "xterm", "-e", "ls"}},
		{[]string{"qvm-run", "--no-color-output", "-pu", "root", "w", "id"}, []string{"--no-color-output", "-p", "--user=root", "--", "w", "id"}},
		{[]string{"qvm-shutdown", "--wait", "--timeout", "5", "a"}, []string{"--wait", "--timeout=5", "a"}},
		{[]string{"qvm-notes", "a", "--set", "x y"}, []string{"a", "--set=x y"}},
	} {
		r := lookup(tools(), test.line[0])
		tool := r.new()
		parser, err := grammar(Streams{}, r, tool)
		if err != nil {
			t.Fatal(err)
		}
		got, err := expand(parser.Model.Node, tool, test.line[1:])
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%q: %q (%v), want %q", test.line, got, err, test.want)
			continue
		}
		if _, err := parser.Parse(got); err != nil {
			t.Errorf("%q: %v", test.line, err)
		}
	}
	r := lookup(tools(), "qvm-ls")
	parser, err := grammar(Streams{}, r, r.new())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := expand(parser.Model.Node, nil, []string{"--ex"}); err == nil {
		t.Error("--ex is --exclude or --exclude-tags, and nobody asks")
	}
}

func TestAQuotedWordIsTheShellsWord(t *testing.T) {
	words := []string{"", "plain-1.2/x", "a b", "it's", `$HOME "x" \`, "*", "new\nline", ";ls"}
	line := "printf '%s\\0'"
	for _, w := range words {
		line += " " + quote(w)
	}
	out, err := exec.Command("sh", "-c", line).Output()
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); err != nil || !slices.Equal(got, words) {
		t.Errorf("%q (%v), want %q", got, err, words)
	}
}

func TestALineIsSplitAsTheShellDoes(t *testing.T) {
	for line, want := range map[string][]string{
		"qvm-ls ":              {"qvm-ls", ""},
		"qvm-ls  --ta":         {"qvm-ls", "--ta"},
		`qvm-run w "a b" 'c d`: {"qvm-run", "w", "a b", "c d"},
		`a b\ c ""  x`:         {"a", "b c", "", "x"},
	} {
		if got := splitLine(line); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func FuzzCommandLines(f *testing.F) {
	f.Add("qvm-run", "--dispvm base xterm -e")
	f.Add("qvm-ls", "--tags a b --raw-list -O name")
	f.Add("qvm-volume", "info work:private size")
	f.Add("qvm-block", "attach -o a=b work dom0:sda")
	f.Fuzz(func(t *testing.T, name, line string) {
		words := splitLine(line)
		r := lookup(tools(), name)
		if r == nil || name == "qvm-device" {
			return
		}
		tool := r.new()
		parser, err := grammar(Streams{}, r, tool)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = expand(parser.Model.Node, tool, words)
		w := &walker{expander: expander{node: parser.Model.Node, given: map[string]bool{}}, tool: tool}
		for _, word := range words {
			w.step(word)
		}
		_ = w.options()
	})
}

// The Makefile links every tool's name to the program.
func TestEveryToolIsInstalled(t *testing.T) {
	raw, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, names, ok := strings.Cut(string(raw), "\nqvm_names := ")
	if !ok {
		t.Fatal("the Makefile has no qvm_names")
	}
	names, _, _ = strings.Cut(strings.ReplaceAll(names, "\\\n", " "), "\n")
	var want []string
	for _, r := range tools() {
		if !r.hidden {
			want = append(want, r.name)
		}
	}
	if got := strings.Fields(names); !slices.Equal(got, want) {
		t.Errorf("the Makefile installs %q, the tools are %q", got, want)
	}
}

// Each tool's page is one that groff takes without a warning.
func TestManualPages(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Log("without groff the pages are only written")
	}
	for _, r := range tools() {
		if r.hidden {
			continue
		}
		page, err := manPage(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{".SH NAME\n", ".SH SYNOPSIS\n", ".SH OPTIONS\n", ".SH EXIT STATUS\n", r.name} {
			if !strings.Contains(page, strings.ReplaceAll(part, "-", `\-`)) {
				t.Errorf("the page of %s lacks %q", r.name, part)
			}
		}
		if groff == "" {
			continue
		}
		c := exec.Command(groff, "-man", "-ww", "-Tutf8")
		c.Stdin = strings.NewReader(page)
		var complaints bytes.Buffer
		c.Stderr = &complaints
		if err := c.Run(); err != nil || complaints.Len() > 0 {
			t.Errorf("the page of %s: %v\n%s", r.name, err, complaints.String())
		}
	}
	page, err := manPage(*lookup(tools(), "qvm-prefs"))
	if err != nil || !strings.Contains(page, `\fBmemory\fR (\fIint\fR)`) {
		t.Errorf("qvm-prefs(1) does not tell of the property memory: %v", err)
	}
}

func TestTheProgressBar(t *testing.T) {
	b := &bar{qubes: []string{"work", "home"}}
	event := func(qube, id, state, progress, text string) {
		b.hear(client.Event{Subject: qube, Args: map[string]string{"id": id, "state": state, "progress": progress, "text": text}})
	}
	event("work", "1", "running", "0.500", "Starting work")
	event("other", "2", "running", "0.1", "no")
	event("work", "x", "running", "NaN", "no")
	if got, want := barLine(b.jobs, 79), "[██████████░░░░░░░░░░]  50%  Starting work"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	event("home", "3", "running", "0", "Starting\nhome\x1b[2J")
	if got, want := barLine(b.jobs, 79), "[█████░░░░░░░░░░░░░░░]  25%  Starting home_[2J (and 1 more)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	event("work", "1", "failed", "0.7", "")
	event("home", "3", "done", "1", "")
	if got, want := barLine(b.jobs, 20), "[██████████████████…"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestATableFitsItsTerminal(t *testing.T) {
	rows := [][]string{{"a-rather-long-name", "Running", "a-template-with-a-long-name", "sys-firewall"}}
	if got, want := fit(rows, 60), []int{18, 7, 17, 12}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := fit(rows, 0), []int{18, 7, 27, 12}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := shorten("a-template", 8); got != "a-templ…" {
		t.Error(got)
	}
	if got, want := breakLines("one two three four", 9), []string{"one two", "three", "four"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The build links every tool's name.
func TestTheMakefileKnowsAllTools(t *testing.T) {
	raw, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(strings.ReplaceAll(string(raw), "\\\n", " "), "\nqvm_names := ")
	line, _, _ := strings.Cut(rest, "\n")
	linked := strings.Fields(line)
	for _, r := range tools() {
		if slices.Contains(linked, r.name) == r.hidden {
			t.Errorf("%s: linked is %v", r.name, !r.hidden)
		}
		linked = slices.DeleteFunc(linked, func(name string) bool { return name == r.name })
	}
	if len(linked) > 0 {
		t.Errorf("no tools are %q", linked)
	}
}
