package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine/boundary"
	"cubicle/daemon/paths"
)

// attacked is the qube that testBoundary attacks from; the qube work must not
// notice.
const attacked = "hostile"

// testBoundary tries from inside a qube to reach dom0 and another qube, and to
// take what all qubes share.
func (d *desktop) testBoundary(t *testing.T, engine string) {
	attacker := filepath.Join(t.TempDir(), "attacker")
	build := exec.Command("go", "build", "-o", attacker, "cubicle/daemon/engine/boundary/attacker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if _, _, err := d.tool("qvm-create", "--label", "red", attacked); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _, _ = d.tool("qvm-kill", attacked) // it may have ended by its own bombs
		if _, _, err := d.tool("qvm-remove", "--force", attacked); err != nil {
			t.Error(err)
		}
	})
	target := d.target(t)
	t.Run("control", func(t *testing.T) { control(t, attacker, target) })
	t.Run("attempts", func(t *testing.T) {
		d.inQube(t, attacked, "sudo -n touch /attacked") // starts it
		before := d.untouched(t)
		data, err := json.Marshal(target)
		if err != nil {
			t.Fatal(err)
		}
		d.put(t, attacker, "/tmp/attacker")
		file := filepath.Join(t.TempDir(), "target.json")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		d.put(t, file, "/tmp/target.json")
		for _, who := range []string{"user", "root"} {
			command := "/tmp/attacker all /tmp/target.json"
			if who == "root" {
				command = "sudo -n " + command
			}
			judge(t, engine, who, d.inQube(t, attacked, command))
		}
		if after := d.untouched(t); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		if got := d.inQube(t, "work", "test -e /attacked || echo clean"); got != "clean" {
			t.Error("what one qube writes to its root another sees")
		}
	})
	for _, kind := range []string{"processors", "processes", "memory", "disk", "console", "descriptors"} {
		t.Run("bomb "+kind, func(t *testing.T) { d.testBomb(t, attacker, engine, kind) })
	}
}

// target is dom0 as the attacker looks for it.
func (d *desktop) target(t *testing.T) *boundary.Target {
	t.Helper()
	target := &boundary.Target{
		Secret: "the secret of dom0", Process: d.pidOf(t, "qubesd"), ProcessName: filepath.Join(d.bin, "qubesd"),
		Abstract: fmt.Sprintf("cubicle-boundary-%d", os.Getpid()), Key: fmt.Sprintf("cubicle-boundary-%d", os.Getpid()),
		SharedKey: 0x43750000 | os.Getpid()&0xffff, Queue: "cubicle-boundary", Marker: "boundary-marker-of-work",
	}
	secret := filepath.Join(d.root, "secret")
	if err := os.WriteFile(secret, []byte(target.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(secret, &st); err != nil {
		t.Fatal(err)
	}
	target.Inode = st.Ino
	target.Files = append([]string{secret}, glob(t, filepath.Join(d.root, "var/lib/qubes/*/*/*.img"))...)
	root := paths.Root(d.root)
	target.Sockets = append(glob(t, filepath.Join(root.Links(), "*", paths.LinkSocket)), root.Qubesd(), root.Broker(), root.Router(), root.SystemBus())

	abstract, err := net.Listen("unix", "@"+target.Abstract)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { abstract.Close() })
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	target.TCP = tcp.Addr().String()
	key, err := unix.AddKey("user", target.Key, []byte(target.Secret), unix.KEY_SPEC_USER_KEYRING)
	if err == nil {
		const all = 0x3f3f0000 // for the possessor and the user
		if err := unix.KeyctlSetperm(key, all); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := unix.KeyctlInt(unix.KEYCTL_REVOKE, key, 0, 0, 0); err != nil {
				t.Error(err)
			}
		})
	} else {
		t.Logf("no key in dom0's keyring: %v", err)
		target.Key = ""
	}
	memory, err := unix.SysvShmGet(target.SharedKey, 4096, unix.IPC_CREAT|unix.IPC_EXCL|0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := unix.SysvShmCtl(memory, unix.IPC_RMID, nil); err != nil {
			t.Error(err)
		}
	})
	d.inQube(t, "work", "bash -c 'exec -a "+target.Marker+" sleep 900' >/dev/null 2>&1 & echo started")
	number, err := strconv.ParseUint(d.pref(t, "work", "xid"), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	target.OtherDomain = uint32(number)
	return target
}

func (d *desktop) pref(t *testing.T, qube, name string) string {
	t.Helper()
	out, _, err := d.tool("qvm-prefs", qube, name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// control makes in dom0 the attempts that must succeed there: they would be
// noticed if they did in a qube.
func control(t *testing.T, attacker string, target *boundary.Target) {
	here := *target
	here.Control = true
	data, err := json.Marshal(here)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "target.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, a := range boundary.Attempts {
		if !a.Control || a.Name == "dom0's keyring" && target.Key == "" {
			continue
		}
		out, err := exec.Command(attacker, "one", file, a.Name).CombinedOutput()
		if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "done") {
			t.Errorf("%s does not succeed in dom0 itself: %s (%v)", a.Name, out, err)
		}
	}
}

// judge compares the attacker's reports with the table.
func judge(t *testing.T, engine, who, said string) {
	t.Helper()
	reports := map[string]boundary.Report{}
	for line := range strings.Lines(said) {
		var r boundary.Report
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		reports[r.Name] = r
	}
	for _, a := range boundary.Attempts {
		r, ok := reports[a.Name]
		if !ok {
			t.Errorf("%s: no report", a.Name)
			continue
		}
		want := a.Of(engine).Root
		if who == "user" {
			want = a.Of(engine).User
		}
		switch {
		case r.Done && want.Verdict == boundary.Refused:
			t.Errorf("%s succeeds as %s under %s: %s", a.Name, who, engine, r.Detail)
		case !r.Done && want.Verdict != boundary.Refused:
			t.Errorf("%s is refused as %s under %s, which the table calls %s: %s", a.Name, who, engine, want, r.Detail)
		}
	}
}

// put copies a file into the hostile qube.
func (d *desktop) put(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "qvm-run"), "--pass-io", "--no-gui", attacked, fmt.Sprintf("cat >'%[1]s' && chmod 755 '%[1]s'", to))
	cmd.Env = append(os.Environ(), "CUBICLE_ROOT="+d.root)
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// untouched is what the attempts aim at, as dom0 sees it.
func (d *desktop) untouched(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	root := paths.Root(d.root)
	folders := append(glob(t, root.Links()+"/*"), glob(t, root.Links()+"/*/*")...)
	for _, name := range append(folders, filepath.Join(d.bin, "agent"), filepath.Join(d.bin, "agent", "qubes-agent"), filepath.Join(d.root, "secret")) {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			t.Fatal(err)
		}
		// A link's socket is made anew for a qube that starts.
		fmt.Fprintf(&b, "%s mode %o owner %d size %d\n", name, st.Mode, st.Uid, st.Size)
	}
	for _, name := range []string{"core_pattern", "modprobe", "panic", "hostname", "sysrq"} {
		value, err := os.ReadFile("/proc/sys/kernel/" + name)
		if err == nil {
			fmt.Fprintf(&b, "%s %s", name, value)
		}
	}
	fmt.Fprintf(&b, "work since %s", d.pref(t, "work", "start_time"))
	return b.String()
}

// testBomb takes everything of one kind in the hostile qube: dom0 and the
// other qube go on, and afterwards the hostile qube starts again.
func (d *desktop) testBomb(t *testing.T, attacker, engine, kind string) {
	since := d.pref(t, "work", "start_time")
	router := fmt.Sprintf("/proc/%d/fd/*", d.pidOf(t, "qrexecd"))
	if kind == "processes" { // before they are too many, memory must not be too little
		if _, _, err := d.tool("qvm-prefs", attacked, "memory", "3000"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, _, err := d.tool("qvm-prefs", "--default", attacked, "memory"); err != nil {
				t.Error(err)
			}
		}()
	}
	d.inQube(t, attacked, "true") // starts it
	d.put(t, attacker, "/tmp/attacker")
	open := len(glob(t, router))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "qvm-run"), "--pass-io", "--no-gui", attacked, "sudo -n /tmp/attacker bomb "+kind)
	cmd.Env = append(os.Environ(), "CUBICLE_ROOT="+d.root)
	var said words
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	works := func() {
		t.Helper()
		if got := d.inQube(t, "work", "echo alive"); got != "alive" {
			t.Errorf("the other qube says %q", got)
		}
		if now := d.pref(t, "work", "start_time"); now != since {
			t.Errorf("the other qube was started anew: %s, before %s", now, since)
		}
	}
	works()
	eventually(t, func() string {
		select {
		case err := <-ended:
			ended <- err
			return ""
		default:
		}
		// These hold what they took for ever.
		if text := said.String(); strings.Contains(text, "took all processes") || strings.Contains(text, "took all processors") {
			return ""
		}
		return "the bomb does not go off: " + said.String()
	})
	for range 3 {
		works()
	}
	if _, rest, ok := strings.Cut(said.String(), "took all processes: "); ok {
		var all, most int
		if _, err := fmt.Sscanf(rest, "%d, as one user %d", &all, &most); err != nil || all > 8192 || most > 4096 {
			t.Errorf("the qube made %d processes, %d of them as one user (%v)", all, most, err)
		}
		// The users together may have more than the qube.
		if engine == "crun" && all < 8000 {
			t.Errorf("only %d processes: something else than the control group ends them", all)
		}
	}
	if kind == "memory" {
		told := "out of memory: a program in it needed more than"
		if engine == "runsc" { // which ends as a whole
			told = "out of memory: it needed more than"
		}
		eventually(t, func() string {
			if !strings.Contains(d.output(), told) {
				return "nobody is told that the memory was not enough"
			}
			return ""
		})
	}
	if kind == "console" {
		info, err := os.Stat(filepath.Join(d.root, "var/log/qubes", "console-"+attacked+".log"))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 4<<20 {
			t.Errorf("the qube wrote %d bytes to its console's log", info.Size())
		}
	}
	if kind == "descriptors" && (!strings.Contains(said.String(), "requests") || strings.Contains(said.String(), "requests 0")) {
		t.Errorf("the bomb did not go off: %s", said.String())
	}
	if _, _, err := d.tool("qvm-kill", attacked); err != nil && d.isRunning(t, attacked) {
		t.Error(err)
	}
	eventually(t, func() string {
		if d.isRunning(t, attacked) {
			return "the hostile qube runs on"
		}
		if now := len(glob(t, router)); now > open {
			return fmt.Sprintf("qrexecd has %d files open, before %d", now, open)
		}
		return ""
	})
	cancel()
	t.Log(said.String())
}

// words are what a program says, to be read while it runs.
type words struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (d *desktop) isRunning(t *testing.T, qube string) bool {
	t.Helper()
	out, _, err := d.tool("qvm-ls", qube)
	if err != nil {
		t.Fatal(err)
	}
	return !strings.Contains(out, "Halted")
}
