package supervise

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// sessionBus runs a bus of the test's own and returns its address.
func sessionBus(t *testing.T) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=3", "--address=unix:path="+filepath.Join(t.TempDir(), "bus"))
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	r.SetReadDeadline(time.Now().Add(time.Minute))
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// desk is a notification daemon.
type desk chan [2]string

func (d desk) Notify(_ string, _ uint32, _, summary, body string, _ []string, _ map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	d <- [2]string{summary, body}
	return 1, nil
}

func TestNoticesReachTheDesktop(t *testing.T) {
	address := sessionBus(t)
	show := SessionBus(address)
	notice, ok := noticeOf(Qube{Name: "work"}, &EndError{"work", ExitOffence})
	if !ok {
		t.Fatal("an offence is no news")
	}
	if err := show(t.Context(), notice); err == nil {
		t.Error("nobody shows notifications, and yet there is no error")
	}
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := make(desk, 1)
	if err := conn.Export(d, "/org/freedesktop/Notifications", "org.freedesktop.Notifications"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName("org.freedesktop.Notifications", 0); err != nil {
		t.Fatal(err)
	}
	if err := show(t.Context(), notice); err != nil {
		t.Fatal(err)
	}
	got := <-d
	if got[0] != "The windows of work vanished" || !strings.Contains(got[1], "the qube broke the rules of the GUI protocol") {
		t.Errorf("the notification says %q", got)
	}
	if err := show(t.Context(), Notice{"a", "<b>&"}); err != nil {
		t.Fatal(err)
	}
	if got := <-d; got[1] != "&lt;b&gt;&amp;" {
		t.Errorf("markup stays markup: %q", got)
	}
}

func TestOnlyTheQubesDoingIsNews(t *testing.T) {
	q := Qube{Name: "work"}
	for exit, news := range map[int]bool{ExitFailed: false, ExitDisplayLost: false, ExitOffence: true,
		ExitVersion: true, ExitStalled: true, ExitDeaf: true, 2: true, -1: true} {
		if _, ok := noticeOf(q, endOf(q, exit, errors.New("exit"))); ok != news {
			t.Errorf("exit state %d: news %v, want %v", exit, ok, news)
		}
	}
	if _, ok := noticeOf(q, nil); ok {
		t.Error("an agent that leaves is news")
	}
	if !errors.Is(endOf(q, ExitDisplayLost, nil), ErrDisplayLost) {
		t.Error("the loss of the display is not told as such")
	}
}

// screens is an X server that comes and goes.
type oneScreen chan struct{}

func (s oneScreen) Done() <-chan struct{} { return s }
func (s oneScreen) Close() error          { return nil }

// The source ends only with the supervisor; the screen comes, goes, stays away
// for two tries, and comes again.
func TestSupervisorWaitsForTheScreen(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	screens := make(chan oneScreen, 4)
	first, second := make(oneScreen), make(oneScreen)
	screens <- first
	served := make(chan context.Context, 2)
	s := newTestSupervisor(t, func(ctx context.Context) { served <- ctx })
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeOn(ctx, func() (Screen, error) {
			select {
			case sc := <-screens:
				if sc == nil {
					return nil, errors.New("no answer")
				}
				return sc, nil
			default:
				return nil, errors.New("no answer")
			}
		})
	}()
	one := <-served
	close(first)
	<-one.Done() // the qube's process ends with the screen
	screens <- nil
	screens <- second
	two := <-served
	cancel()
	<-two.Done()
	<-done
}
