package main_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/paths"
)

// testCalls makes calls out of a qube: allowed and denied ones, to a qube that
// has to be started, to a disposable, to dom0, while the policy is wrong, and
// while qubesd is killed.
func (d *desktop) testCalls(t *testing.T) {
	const to, base = "callee", "throw-away-callee"
	for _, name := range []string{to, base} {
		if _, _, err := d.tool("qvm-create", "--label", "red", name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_, _, _ = d.tool("qvm-kill", name) // where the test ended early it runs
			if _, _, err := d.tool("qvm-remove", "--force", name); err != nil {
				t.Error(err)
			}
		})
	}
	const service = `#!/bin/sh
echo "$QREXEC_REMOTE_DOMAIN calls $(hostname) as $(id -un) with $1"
cat
exit 3
`
	for _, name := range []string{to, "untrusted"} {
		d.inQube(t, name, "mkdir -p ~/rpc && cat > ~/rpc/t.Echo <<'E'\n"+service+"E\nchmod 755 ~/rpc/t.Echo")
		if _, _, err := d.tool("qvm-run", "--user", "root", name, "mkdir -p /usr/local/etc/qubes-rpc && cp /home/user/rpc/t.Echo /usr/local/etc/qubes-rpc/"); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"qvm-shutdown", "--wait", to}, {"qvm-prefs", base, "template_for_dispvms", "True"}, {"qvm-prefs", "work", "default_dispvm", base}} {
		if _, _, err := d.tool(args[0], args[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _, _, _ = d.tool("qvm-prefs", "--default", "work", "default_dispvm") })
	forget := d.policy(t, "10-calls", `
t.Echo +root work untrusted allow user=root
t.Echo +no work untrusted deny
t.Echo * work untrusted allow
t.Echo * work @default allow target=untrusted
t.Echo +still work callee allow autostart=no
t.Echo * work callee allow
qubes.VMShell * work @dispvm allow
admin.vm.CurrentState * work @adminvm allow target=dom0
`)
	defer forget()

	for _, c := range []struct{ call, want string }{
		{"untrusted t.Echo+a", "work calls untrusted as user with a\nhello\nstatus 3"},
		{"untrusted t.Echo", "work calls untrusted as user with \nhello\nstatus 3"},
		{"'' t.Echo+b", "work calls untrusted as user with b\nhello\nstatus 3"},
		{"untrusted t.Echo+root", "work calls untrusted as root with root\nhello\nstatus 3"},
		{"untrusted t.Echo+no", "Request refused\nstatus 126"},
		{"untrusted t.Other", "Request refused\nstatus 126"},
		{"work t.Echo", "Request refused\nstatus 126"},
		{"vault t.Echo", "Request refused\nstatus 126"},
		{"callee t.Echo+still", "Request refused\nstatus 126"},
		{"callee t.Echo+a", "work calls callee as user with a\nhello\nstatus 3"}, // it is started
		{"callee t.Echo+still", "work calls callee as user with still\nhello\nstatus 3"},
	} {
		if got := d.calls(t, "echo hello", c.call); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.call, got, c.want)
		}
	}
	name, rest, _ := strings.Cut(d.calls(t, "echo 'hostname; exit 5'", "@dispvm qubes.VMShell"), "\n")
	if !strings.HasPrefix(name, "disp") || rest != "status 5" {
		t.Errorf("a disposable says %q, %q", name, rest)
	}
	d.noDisposable(t)
	if got := d.calls(t, "true", "dom0 admin.vm.CurrentState"); !strings.Contains(got, "power_state=Running") || !strings.HasSuffix(got, "status 0") {
		t.Errorf("dom0 says %q", got)
	}

	// While the policy is wrong nothing is allowed.
	mend := d.policy(t, "05-wrong", "t.Echo * work\n")
	if got := d.calls(t, "echo hello", "untrusted t.Echo"); got != "Request refused\nstatus 126" {
		t.Errorf("with a wrong policy: %q", got)
	}
	mend()
	if got := d.calls(t, "echo hello", "untrusted t.Echo"); !strings.HasSuffix(got, "status 3") {
		t.Errorf("with a mended policy: %q", got)
	}
	d.testCallLog(t)
	d.testCallsOutliveQubesd(t)
}

// policy adds a file to the policy; what it returns takes it away.
func (d *desktop) policy(t *testing.T, name, rules string) (remove func()) {
	t.Helper()
	file := filepath.Join(d.root, "etc/qubes/policy.d", name+".policy")
	if err := os.WriteFile(file, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	gone := false
	remove = func() {
		if !gone {
			gone = true
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(remove)
	return remove
}

// calls makes a call from work, with a command's output as its input.
func (d *desktop) calls(t *testing.T, input, call string) string {
	t.Helper()
	return d.inQube(t, "work", "("+input+") | qrexec-client-vm "+call+" 2>&1; echo status $?")
}

// noDisposable waits until none is left.
func (d *desktop) noDisposable(t *testing.T) {
	t.Helper()
	eventually(t, func() string {
		list, _, err := d.tool("qvm-ls", "--raw-data", "--fields", "NAME,CLASS")
		if err != nil {
			return err.Error()
		}
		if strings.Contains(list, "|DispVM") {
			return "a disposable is left:\n" + list
		}
		return ""
	})
}

// testCallLog looks at what the Manager shows of calls.
func (d *desktop) testCallLog(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	root, err := paths.New(d.root)
	if err != nil {
		t.Fatal(err)
	}
	bus, err := client.Connect(ctx, client.Address(root))
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	eventually(t, func() string {
		list, err := bus.RecentCalls(ctx, "work", 100)
		if err != nil {
			return err.Error()
		}
		kinds := map[string]bool{}
		for _, c := range list {
			switch {
			case c.Running:
			case c.Allowed && c.Target == "untrusted" && c.ServiceTime > 0 && c.ConnectTime > 0 && c.PolicyTime > 0 && strings.HasSuffix(c.Rule, "/10-calls.policy:4"):
				kinds["allowed"] = true
			case c.Allowed && c.Target == "callee" && c.StartTime > 10*time.Millisecond:
				kinds["started"] = true
			case c.Allowed && strings.HasPrefix(c.Target, "disp"):
				kinds["disposable"] = true
			case !c.Allowed && strings.Contains(c.Error, "05-wrong.policy:1"):
				kinds["wrong"] = true
			case !c.Allowed && c.Reason == "a rule denies it" && c.Asked == "untrusted":
				kinds["denied"] = true
			}
		}
		if len(kinds) != 5 {
			return fmt.Sprintf("only %v are in the log of calls:\n%+v", kinds, list)
		}
		return ""
	})
}

// testCallsOutliveQubesd kills qubesd while calls go on: they end as they
// would have, and their disposables go.
func (d *desktop) testCallsOutliveQubesd(t *testing.T) {
	type result struct {
		out string
		err error
	}
	start := func(call string) <-chan result {
		done := make(chan result, 1)
		go func() {
			out, _, err := d.tool("qvm-run", "--pass-io", "work",
				"(echo hostname; while ! test -e ~/go-on; do sleep 0.1; done; echo exit 7) | qrexec-client-vm "+call+"; echo status $?")
			done <- result{out, err}
		}()
		return done
	}
	d.inQube(t, "work", "rm -f ~/go-on")
	disposable, qube := start("@dispvm qubes.VMShell"), start("untrusted t.Echo+long")
	marks := filepath.Join(d.root, "run/qubes/disposables/*")
	eventually(t, func() string {
		if list, _, err := d.tool("qvm-ls", "--raw-data", "--fields", "CLASS,STATE"); err != nil || !strings.Contains(list, "DispVM|Running") {
			return fmt.Sprintf("the disposable does not run: %v", err)
		}
		return ""
	})
	time.Sleep(300 * time.Millisecond) // the verdict arrives
	pid := d.pidOf(t, "qubesd")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if now := d.pids(t, "qubesd"); len(now) == 0 || now[0] == pid {
			return "qubesd is not started again"
		}
		return ""
	})
	// It serves again, and the calls go on.
	eventually(t, func() string {
		if out, _, err := d.tool("qvm-run", "--pass-io", "work", "touch ~/go-on; echo | qrexec-client-vm untrusted t.Echo+c >&2; echo status $?"); err != nil || out != "status 3\n" {
			return fmt.Sprintf("a call after the restart: %q, %v", out, err)
		}
		return ""
	})
	if r := <-disposable; r.err != nil || !strings.HasPrefix(r.out, "disp") || !strings.HasSuffix(r.out, "\nstatus 7\n") {
		t.Errorf("the call to a disposable: %q, %v", r.out, r.err)
	}
	if r := <-qube; r.err != nil || r.out != "work calls untrusted as user with long\nhostname\nexit 7\nstatus 3\n" {
		t.Errorf("the call to a qube: %q, %v", r.out, r.err)
	}
	d.noDisposable(t)
	eventually(t, func() string {
		if left := glob(t, marks); len(left) > 0 {
			return fmt.Sprintf("still on record: %v", left)
		}
		return ""
	})
	d.inQube(t, "work", "rm ~/go-on")
}
