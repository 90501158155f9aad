package desktop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/paths"
)

func newRoot(t *testing.T) (paths.Root, files) {
	t.Helper()
	root, err := paths.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := files{root}
	if err := os.MkdirAll(f.dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	return root, f
}

func TestOneDesktopARoot(t *testing.T) {
	_, f := newRoot(t)
	lock, err := lockSystem(f, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockSystem(f, os.Getpid()); err == nil || !strings.Contains(err.Error(), "cubicle down") {
		t.Errorf("a second one: %v", err)
	}
	if held, pid, err := locked(f); !held || pid != os.Getpid() || err != nil {
		t.Errorf("held %v by %d, %v", held, pid, err)
	}
	lock.Close()
	if held, _, err := locked(f); held || err != nil {
		t.Errorf("held %v, %v", held, err)
	}
}

func TestAPIDThatWasUsedAgainIsNotTaken(t *testing.T) {
	_, f := newRoot(t)
	lock, err := lockSystem(f, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := os.WriteFile(f.lock(), fmt.Appendf(nil, "%d 1\n", os.Getpid()), 0o644); err != nil {
		t.Fatal(err)
	}
	if held, pid, err := locked(f); !held || pid != 0 || err != nil {
		t.Errorf("held %v by %d, %v", held, pid, err)
	}
}

func TestDownWithNothingRunning(t *testing.T) {
	root, _ := newRoot(t)
	err := Down(context.Background(), root, func(context.Context) error { return errors.New("called") })
	if err != nil {
		t.Error(err)
	}
}

func TestDownCleansUpAfterAKilledUp(t *testing.T) {
	root, _ := newRoot(t)
	if err := os.MkdirAll(filepath.Join(root.Machines(), "some-qube"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := errors.New("called")
	if err := Down(context.Background(), root, func(context.Context) error { return want }); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
}

func TestDownEndsUpAndWaits(t *testing.T) {
	root, f := newRoot(t)
	up := exec.Command("/bin/sleep", "600")
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	lock, err := lockSystem(f, up.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	released := make(chan struct{})
	go func() {
		up.Wait() // ended by Down's signal
		close(released)
		lock.Close()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := Down(ctx, root, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-released:
	default:
		t.Error("it came back before the lock was released")
	}
}

func TestALongRootIsRefused(t *testing.T) {
	root := paths.Root("/" + strings.Repeat("x", 100))
	if err := checkRoot(root); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("%v", err)
	}
	if err := checkRoot("/var/lib/cubicle"); err != nil {
		t.Error(err)
	}
}

func TestWhatIsLacking(t *testing.T) {
	wanted := map[string]int{"work": 2, "untrusted": 1}
	windows := []Window{
		{Qube: "work", Drawn: true}, {Qube: "work"}, {Qube: "untrusted", Drawn: true},
		{Qube: "untrusted", Class: managerClass, Drawn: true}, // a qube's imitation
	}
	if got := lacking(wanted, windows, true); strings.Join(got, ",") != "work,the Manager" {
		t.Errorf("%q", got)
	}
	windows[1].Drawn = true
	windows = append(windows, Window{Class: managerClass, Drawn: true})
	if got := lacking(wanted, windows, true); got != nil {
		t.Errorf("%q", got)
	}
	windows[1].Drawn = false
	if got := lacking(wanted, windows, false); got != nil {
		t.Errorf("among windows that others cover: %q", got)
	}
}

func TestXauthorityIsReadByXauth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Xauthority")
	cookie, err := newCookie()
	if err != nil {
		t.Fatal(err)
	}
	if err := writeXauthority(path, cookie, "17"); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("xauth", "-n", "-f", path, "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("unix:17  MIT-MAGIC-COOKIE-1  %x", cookie); !strings.Contains(string(out), want) {
		t.Errorf("xauth reads %q, not %q", out, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestProgressSaysEveryTextOnce(t *testing.T) {
	var out bytes.Buffer
	d := &desktop{UpOptions: UpOptions{Out: &out}}
	last := ""
	for _, j := range []client.Job{
		{Text: "fetching", Progress: 0.1}, {Text: "fetching", Progress: 0.2}, {Text: "packing", Progress: 0.9},
	} {
		last = d.progress(j, last)
	}
	if got := out.String(); got != " 10 % fetching\n 90 % packing\n" {
		t.Errorf("%q", got)
	}
}

// The desktop user's policy agent has its socket in the user's own folder, and
// a link of a former user's is replaced.
func TestThePolicyAgentHasAPlaceOfItsUsers(t *testing.T) {
	root, f := newRoot(t)
	for _, uid := range []int{1000, 1001} {
		if err := makeFolders(f, os.Getuid(), os.Getgid()); err != nil {
			t.Fatal(err)
		}
		if err := linkPolicyAgent(f, uid); err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink(root.PolicyAgent()); err != nil || to != filepath.Join(f.user(uid), policyAgentSocket) {
			t.Errorf("user %d: %q, %v", uid, to, err)
		}
	}
}
