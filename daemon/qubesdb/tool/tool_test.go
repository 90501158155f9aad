package tool

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/qubesdb"
	"cubicle/daemon/vchan"
)

// offer serves a database as that of the qube work.
func offer(t *testing.T, dir string, d *qubesdb.DB) {
	t.Helper()
	rw, _ := qubesdb.SocketNames("work")
	l, err := vchan.ListenPath(filepath.Join(dir, rw))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Serve(ctx, l, false, nil, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() { cancel(); <-done; l.Close() })
}

// call runs a tool on the database of work.
func call(dir, line string) (status int, out, errOut string) {
	args := strings.Fields(line)
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	status = Tool{Dir: dir, Name: args[0], Stdout: &o, Stderr: &e}.Run(ctx, append([]string{"-d", "work"}, args[1:]...))
	return status, o.String(), e.String()
}

func TestTools(t *testing.T) {
	dir := t.TempDir()
	offer(t, dir, qubesdb.NewInQube())
	for _, c := range []struct {
		line   string
		status int
		out    string
		err    string // part of the message
	}{
		{"qubesdb-write /name work /s/a 1 /s/b \\\x1b", 0, "", ""},
		{"qubesdb-read /name", 0, "work\n", ""},
		{"qubesdb-read -r /name", 0, "work", ""},
		{"qubesdb-read -f /name", 0, "/name = work\n", ""},
		{"qubesdb-read /name /s/a", 0, "work\n1\n", ""},
		{"qubesdb-read /s/b", 0, "\\x5c\\x1b\n", ""},
		{"qubesdb-read -r /s/b", 0, "\\\x1b", ""},
		{"qubesdb-read /none", 2, "", "qubesdb-read: error: /none: no such entry\n"},
		{"qubesdb-read -q /none", 2, "", ""},
		{"qubesdb-read --default=x /none", 0, "x\n", ""},
		{"qubesdb-read -e x /name", 0, "work\n", ""},
		{"qubesdb-read --default= /none", 0, "\n", ""},
		{"qubesdb-list /s/", 0, "a\nb\n", ""},
		{"qubesdb-list -f /s/", 0, "/s/a\n/s/b\n", ""},
		{"qubesdb-multiread /s/", 0, "a = 1\nb = \\x5c\\x1b\n", ""},
		{"qubesdb-multiread -f /name", 0, "/name = work\n", ""},
		{"qubesdb-cmd -c read /name", 0, "work\n", ""},
		{"qubesdb-rm /s/", 0, "", ""},
		{"qubesdb-list /s/", 0, "", ""},
		{"qubesdb-rm /s/", 1, "", "no such entry"},
		{"qubesdb-write /name", 1, "", "/name has no value"},
		{"qubesdb-write name x", 1, "", "does not begin with /"},
		{"qubesdb-read /name/", 1, "", "ends in /"},
		{"qubesdb-read", 1, "", "a path is needed"},
		{"qubesdb-dance /name", 1, "", "none of"},
		{"qubesdb-read --nonsense /name", 1, "", "unknown flag"},
		{"qubesdb-read -d ../x /name", 1, "", "not a qube's name"},
		{"qubesdb-read -d other /name", 1, "", "no such file"},
	} {
		status, out, errOut := call(dir, c.line)
		if status != c.status || out != c.out || !strings.Contains(errOut, c.err) || c.err == "" && errOut != "" {
			t.Errorf("%s: status %d, %q, %q", c.line, status, out, errOut)
		}
	}
	if status, out, _ := call(dir, "qubesdb-read --help"); status != 0 || !strings.Contains(out, "--default") {
		t.Errorf("help: %d, %q", status, out)
	}
}

func TestToolsWait(t *testing.T) {
	dir := t.TempDir()
	d := qubesdb.NewInQube()
	type result struct {
		status int
		out    string
	}
	waited := make(chan result, 2)
	begin := func(line string) {
		go func() {
			status, out, _ := call(dir, line)
			waited <- result{status, out}
		}()
	}
	begin("qubesdb-read -w /late") // before there is a database
	time.Sleep(2 * dialPause)
	offer(t, dir, d)
	write := func(path string) {
		t.Helper()
		if err := d.Write(path, "now"); err != nil {
			t.Fatal(err)
		}
	}
	write("/late")
	if r := <-waited; r != (result{0, "now\n"}) {
		t.Errorf("%+v", r)
	}
	begin("qubesdb-watch -n 2 /w/")
	for len(waited) == 0 {
		write("/w/a") // until it watches, and then twice
		time.Sleep(time.Millisecond)
	}
	if r := <-waited; r != (result{0, "/w/a\n/w/a\n"}) {
		t.Errorf("%+v", r)
	}
}
