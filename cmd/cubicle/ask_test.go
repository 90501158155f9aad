package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cubicle/guid/x11"
)

// testAsk answers the questions of a policy that asks: a person's yes, a no,
// and a caller that gives up.
func (d *desktop) testAsk(t *testing.T) {
	file := filepath.Join(d.root, "etc/qubes/policy.d/20-test.policy")
	rules := "qubes.Filecopy * work @anyvm ask default_target=untrusted\n"
	if err := os.WriteFile(file, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	})
	copies := func(prefix string) <-chan string {
		done := make(chan string, 1)
		go func() {
			out, _, err := d.tool("qvm-run", "--pass-io", "work", "echo asked > ~/asked; "+prefix+" qvm-copy ~/asked; echo status $?")
			if err != nil {
				out += err.Error()
			}
			done <- out
		}()
		return done
	}
	const enter, escape = 0xff0d, 0xff1b

	// The first presses may come before its time, and do not count then.
	done := copies("")
	d.question(t)
	if said := d.pressUntil(t, enter, done); !strings.Contains(said, "status 0") {
		t.Errorf("allowed: the caller says %q", said)
	}
	if got := d.inQube(t, "untrusted", "cat ~/QubesIncoming/work/asked; rm -r ~/QubesIncoming/work"); got != "asked" {
		t.Errorf("in the other qube: %q", got)
	}

	done = copies("")
	d.question(t)
	if said := d.pressUntil(t, escape, done); strings.Contains(said, "status 0") || !strings.Contains(said, "status") {
		t.Errorf("denied: the caller says %q", said)
	}

	done = copies("timeout 5")
	d.question(t)
	if said := <-done; !strings.Contains(said, "status 124") {
		t.Errorf("given up: the caller says %q", said)
	}
	eventually(t, func() string {
		if _, open := d.titled(t, "work asks"); open {
			return "the question stands though nobody waits for its answer"
		}
		return ""
	})
	if got := d.inQube(t, "untrusted", "ls ~/QubesIncoming"); got != "" {
		t.Errorf("what was not allowed has arrived: %q", got)
	}
}

// question waits for the question of work with the keyboard.
func (d *desktop) question(t *testing.T) {
	t.Helper()
	eventually(t, func() string {
		w, open := d.titled(t, "work asks")
		if !open {
			return "nobody is asked"
		}
		if focus, err := d.x.InputFocus(); err != nil || focus != w {
			return "the question has not the keyboard"
		}
		return ""
	})
}

// pressUntil presses a key while a question stands, with the pauses that it
// wants, until somebody has his answer.
func (d *desktop) pressUntil(t *testing.T, key x11.Keysym, done <-chan string) string {
	t.Helper()
	const pause = 700 * time.Millisecond
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, open := d.titled(t, "work asks"); open {
			d.x.FakeKey(d.keys.Code(key), true)
			d.x.FakeKey(d.keys.Code(key), false)
			if err := d.x.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case said := <-done:
			return said
		case <-time.After(pause):
		}
	}
	t.Fatal("the question has no answer")
	return ""
}

// titled looks for a window of dom0's by its title.
func (d *desktop) titled(t *testing.T, title string) (x11.Window, bool) {
	t.Helper()
	windows, err := d.screen.Windows()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range windows {
		p, err := d.x.GetProperty(w.ID, x11.AtomWMName, x11.AtomAny, 256)
		if err == nil && w.Qube == "" && string(p.Data) == title {
			return w.ID, true
		}
	}
	return 0, false
}
