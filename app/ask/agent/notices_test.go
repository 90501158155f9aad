package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cubicle/app/words"
)

// wall is what people see of notices.
type wall struct {
	texts map[uint32]string
	last  uint32
	shows int
	err   error
}

func (w *wall) show(_ context.Context, n Notice, replaces uint32) (uint32, error) {
	w.shows++
	if w.err != nil {
		return 0, w.err
	}
	if replaces == 0 {
		w.last++
		replaces = w.last
	}
	w.texts[replaces] = n.Title + ": " + n.Text
	return replaces, nil
}

func newWall(t *testing.T) (*wall, *Notices) {
	words.Use("en")
	t.Cleanup(func() { words.Use("") })
	w := &wall{texts: map[uint32]string{}}
	return w, NewNotices(w.show, quiet())
}

var denied = News{Resolution: Denied, Service: "qubes.Filecopy", Source: "work", Target: "vault"}

func TestNoticesThatRepeatAreOne(t *testing.T) {
	w, n := newWall(t)
	now := time.Unix(1e9, 0)
	n.take(t.Context(), denied, now)
	if got, want := w.texts[1], "Call denied: work was denied qubes.Filecopy to vault. The Qube Manager shows recent calls."; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for range 11 {
		n.take(t.Context(), denied, now)
	}
	if w.shows != 1 {
		t.Errorf("shown %d times in no time", w.shows)
	}
	n.refresh(t.Context(), now.Add(n.Pace))
	if got := w.texts[1]; len(w.texts) != 1 || !strings.Contains(got, "to vault — 12 times. ") {
		t.Errorf("%v", w.texts)
	}
	n.refresh(t.Context(), now.Add(n.Memory+time.Second))
	n.take(t.Context(), denied, now.Add(n.Memory+2*time.Second))
	if len(w.texts) != 2 || strings.Contains(w.texts[2], "times") {
		t.Errorf("a call of much later: %v", w.texts)
	}
}

// A qube that varies its calls fills no screen either.
func TestManyNoticesOfASourceAreOne(t *testing.T) {
	w, n := newWall(t)
	now := time.Unix(1e9, 0)
	for i := range 1000 {
		one := denied
		one.Service = fmt.Sprint("q.S", i)
		n.take(t.Context(), one, now)
	}
	other := denied
	other.Source = "personal"
	n.take(t.Context(), other, now)
	n.refresh(t.Context(), now.Add(n.Pace))
	if len(w.texts) != maxSubjects+2 {
		t.Errorf("%d notices stand side by side", len(w.texts))
	}
	if got := w.texts[maxSubjects+1]; got != "Calls denied: work: 996 other calls were denied. The Qube Manager shows recent calls." {
		t.Errorf("%q", got)
	}
	if got := w.texts[maxSubjects+2]; !strings.Contains(got, "personal was denied qubes.Filecopy to vault") {
		t.Errorf("%q", got)
	}
}

func TestNoticesInWords(t *testing.T) {
	newWall(t)
	for want, s := range map[string]subject{
		"work was allowed q.S+a to dom0":                                    {Resolution: Allowed, Service: "q.S", Argument: "a", Source: "work", Target: "@adminvm"},
		"work was allowed q.S.":                                             {Resolution: Allowed, Service: "q.S", Source: "work", Target: "@default"},
		"work could not be served q.S by a disposable":                      {Resolution: Failed, Service: "q.S", Source: "work", Target: "@dispvm"},
		"work could not be served q.S.":                                     {Resolution: Failed, Service: "q.S", Source: "work"},
		"work was denied q.S to Disposable VM (dvm)":                        {Resolution: Denied, Service: "q.S", Source: "work", Target: "@dispvm:dvm"},
		"work was denied q.S.":                                              {Resolution: Denied, Service: "q.S", Source: "work"},
		"work was denied " + strings.Repeat("x", 30) + "…":                  {Resolution: Denied, Service: strings.Repeat("x", 60000), Source: "work", Target: "web"},
		"work: 1 other call failed.":                                        {Resolution: Failed, Source: "work"},
		"Every call between qubes is denied until it is mended. f:1: wrong": {Resolution: Broken, Fault: "f:1: wrong"},
		"work: 1 other call was allowed.":                                   {Resolution: Allowed, Source: "work"},
	} {
		if got := s.notice(1).Text; !strings.HasPrefix(got, want) || len(got) > 300 {
			t.Errorf("%q, want %q", got, want)
		}
	}
	words.Use("de")
	if got := subject(denied).notice(2).Text; got != "work wurde qubes.Filecopy nach vault verweigert – 2-mal. Der Qube-Manager zeigt die letzten Aufrufe." {
		t.Errorf("%q", got)
	}
}

func TestTellingNeverWaits(t *testing.T) {
	w, n := newWall(t)
	for range 10 * cap(n.news) {
		n.Tell(denied)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	n.Pace = time.Millisecond
	go func() { defer close(done); n.Run(ctx) }()
	for end := time.Now().Add(patience); len(n.news) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody is told")
		}
	}
	cancel()
	<-done
	if len(w.texts) != 1 {
		t.Errorf("%v", w.texts)
	}
}

// The process of the toasts is started when it is needed, and again when it
// has ended.
func TestToastsHaveAProcess(t *testing.T) {
	pressed := make(chan string, 4)
	toasts := &Toasts{Log: quiet(), Pressed: func(about string) { pressed <- about }, Command: func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CUBICLE_TEST_DIALOG=toasts")
		return cmd
	}}
	t.Cleanup(toasts.Close)
	id, err := toasts.Show(t.Context(), Notice{Title: "press", About: "work"}, 7)
	if err != nil || id < ownNumbers {
		t.Fatalf("%d, %v", id, err)
	}
	if again, err := toasts.Show(t.Context(), Notice{Title: "press"}, id); err != nil || again != id {
		t.Errorf("%d became %d, %v", id, again, err)
	}
	if first, second := <-pressed, <-pressed; first != "work" || second != "" {
		t.Errorf("about %q and %q", first, second)
	}
	if _, err := toasts.Show(t.Context(), Notice{Title: "end"}, 0); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); len(pressed) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not started again")
		}
		if _, err := toasts.Show(t.Context(), Notice{Title: "press"}, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// toastProcess answers each notice as its title says.
func toastProcess() {
	for in := json.NewDecoder(bufio.NewReader(os.Stdin)); ; {
		var n ToToasts
		if in.Decode(&n) != nil || n.Title == "end" {
			os.Exit(0)
		}
		fmt.Println(n.About)
	}
}
