package launch

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// safeBuffer is a buffer that may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func alive(pid int) bool {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(status), ") Z ")
}

func TestOutputGetsAPrefixAndNoControlCharacters(t *testing.T) {
	var out safeBuffer
	g := NewGroup(NewLog(&out, false, 6))
	c, err := g.Start(Program{Name: "hello", Args: []string{"/bin/sh", "-c", `printf 'one\n\033[31mred\n'; echo two >&2`}})
	if err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	g.Stop()
	for _, want := range []string{" hello  one\n", ` hello  \x1b[31mred` + "\n", " hello  two\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, out.String())
		}
	}
}

func TestStopEndsTheYoungestFirst(t *testing.T) {
	var out safeBuffer
	g := NewGroup(NewLog(&out, false, 1))
	for _, name := range []string{"a", "b"} {
		if _, err := g.Start(Program{Name: name, Args: []string{"/bin/sh", "-c", `trap 'echo end; exit' TERM; echo up; while :; do sleep 0.01; done`}}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both are up", func() bool { return strings.Count(out.String(), " up\n") == 2 })
	g.Stop()
	if a, b := strings.Index(out.String(), "a end"), strings.Index(out.String(), "b end"); b < 0 || a < b {
		t.Errorf("order of the ends: %q", out.String())
	}
	if _, err := g.Start(Program{Name: "late", Args: []string{"/bin/true"}}); err == nil {
		t.Error("a stopped group starts programs")
	}
}

func TestAStubbornChildIsKilled(t *testing.T) {
	g := NewGroup(NewLog(&safeBuffer{}, false, 1))
	marker := filepath.Join(t.TempDir(), "up")
	c, err := g.Start(Program{Name: "mule", Grace: 50 * time.Millisecond, Args: []string{"/bin/sh", "-c", `trap '' TERM; : > ` + marker + `; while :; do sleep 0.01; done`}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.WaitFor(ctx, func() bool { _, err := os.Stat(marker); return err == nil }); err != nil {
		t.Fatal(err)
	}
	pid := c.PID()
	g.Stop()
	if alive(pid) {
		t.Error("it lives on")
	}
}

func TestADaemonIsStartedAgain(t *testing.T) {
	var out safeBuffer
	g := NewGroup(NewLog(&out, false, 1))
	c, err := g.Start(Program{Name: "d", Restart: true, Args: []string{"/bin/sh", "-c", "echo up; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a third start", func() bool { return strings.Count(out.String(), " up\n") >= 3 })
	g.Stop()
	<-c.Done()
	n := strings.Count(out.String(), " up\n")
	time.Sleep(300 * time.Millisecond)
	if strings.Count(out.String(), " up\n") != n {
		t.Error("it was started after Stop")
	}
}

func TestWaitForTellsThatTheChildEnded(t *testing.T) {
	g := NewGroup(NewLog(&safeBuffer{}, false, 1))
	defer g.Stop()
	c, err := g.Start(Program{Name: "brief", Restart: true, Args: []string{"/bin/sh", "-c", "exit 7"}})
	if err != nil {
		t.Fatal(err)
	}
	err = c.WaitFor(context.Background(), func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("error %v", err)
	}
}

func TestMissingProgramIsAnError(t *testing.T) {
	g := NewGroup(NewLog(&safeBuffer{}, false, 1))
	defer g.Stop()
	if _, err := g.Start(Program{Name: "none", Args: []string{"/nonexistent/program"}}); err == nil {
		t.Error("no error")
	}
}
