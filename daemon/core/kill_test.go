package core_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/qube"
)

// Changes by a daemon that is killed again and again: what it has acknowledged
// is there, what it was about to do is there or not, and nothing is half.

// changerDir tells a child of the test binary that it is the daemon.
const changerDir = "CUBICLE_TEST_CHANGER"

// workers are the qubes that are changed.
const workers = 4

func worker(n int) string { return "q" + strconv.Itoa(n%workers) }

// TestChanger is the daemon that is killed: it changes things for ever, and
// says what it tries and what is done.
func TestChanger(t *testing.T) {
	dir := os.Getenv(changerDir)
	if dir == "" {
		t.Skip("only as the child of TestKilledDuringChanges")
	}
	s, err := coretest.Start(coretest.New(), dir, core.WallClock{})
	if err != nil {
		t.Fatal(err)
	}
	id := func(name string) qube.UUID {
		q, ok := s.View().Named(qube.Name(name))
		if !ok {
			t.Fatalf("%s is lost", name)
		}
		return q.UUID()
	}
	for n := 0; ; n++ {
		name, value := worker(rand.IntN(workers)), strconv.Itoa(rand.IntN(1<<20)+1)
		var key string
		var do func() error
		switch n % 7 {
		case 0, 1:
			key, do = "property "+name+" memory", func() error { return s.SetProperty(id(name), "memory", value) }
		case 2:
			key, do = "feature "+name+" x-a", func() error { return s.SetFeature(id(name), "x-a", value) }
		case 3, 4: // three files at once
			key, value, do = "clockvm", name, func() error { return s.SetSystemProperty("clockvm", name) }
		case 5:
			key, value = "qube n"+value, "yes"
			do = func() error {
				return s.Done(s.Create(core.NewQube{Name: strings.TrimPrefix(key, "qube "), Class: "AppVM", Label: "red"}))
			}
		case 6:
			for _, q := range s.View().Qubes() {
				if strings.HasPrefix(string(q.Name()), "n") {
					key, value, do = "qube "+string(q.Name()), "", func() error { return s.Done(s.Remove(q.UUID())) }
				}
			}
		}
		if do == nil {
			continue
		}
		fmt.Printf("try\t%s\t%s\n", key, value)
		if err := do(); err != nil {
			t.Fatalf("%s = %s: %v", key, value, err)
		}
		fmt.Println("done")
	}
}

// look finds what a key says.
func look(v *core.View, key string) string {
	words := strings.Fields(key)
	switch words[0] {
	case "clockvm":
		return v.System().Property("clockvm")
	case "qube":
		if _, ok := v.Named(qube.Name(words[1])); ok {
			return "yes"
		}
		return ""
	}
	q, _ := v.Named(qube.Name(words[1]))
	if words[0] == "feature" {
		text, _ := q.Feature(words[2])
		return text
	}
	text, _ := q.Explicit(words[2])
	return text
}

func TestKilledDuringChanges(t *testing.T) {
	const changes = 1000
	dir := t.TempDir()
	s, err := coretest.Start(coretest.New(), dir, core.WallClock{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.CreateTemplate("debian-12", "x")); err != nil {
		t.Fatal(err)
	}
	for n := range workers {
		newQube(t, s, worker(n))
	}
	s.Close()

	known := map[string]string{} // what was acknowledged
	done, kills := 0, 0
	for ; done < changes; kills++ {
		key, value, n := changeAndKill(t, dir, known, 20+rand.IntN(60))
		done += n
		s, err := coretest.Start(coretest.New(), dir, core.WallClock{})
		if err != nil {
			t.Fatalf("after kill %d: %v", kills, err)
		}
		v := s.View()
		for k, want := range known {
			if got := look(v, k); got != want && (k != key || got != value) {
				t.Fatalf("after kill %d: %s is %q; acknowledged was %q, about to be done %s = %q", kills, k, got, want, key, value)
			}
		}
		if key != "" {
			known[key] = look(v, key)
		}
		whole(t, v, dir)
		s.Close()
	}
	t.Logf("%d changes, %d kills", done, kills)
}

// changeAndKill lets a daemon make changes, notes them, and kills it at a
// random instant after so many. It returns the change that was under way.
func changeAndKill(t *testing.T, dir string, known map[string]string, after int) (key, value string, done int) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChanger$")
	child.Env = append(os.Environ(), changerDir+"="+dir)
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		said = append(said, lines.Text())
		words := strings.Split(lines.Text(), "\t")
		switch {
		case words[0] == "try" && len(words) == 3:
			key, value = words[1], words[2]
		case words[0] == "done":
			known[key], key = value, ""
			if done++; done == after {
				time.AfterFunc(time.Duration(rand.IntN(8000))*time.Microsecond, func() { child.Process.Kill() })
			}
		}
	}
	if err := child.Wait(); done < after {
		t.Fatalf("the daemon ended by itself: %v\n%s", err, strings.Join(said, "\n"))
	}
	return key, value, done
}

// whole checks what must be so after every change.
func whole(t *testing.T, v *core.View, dir string) {
	t.Helper()
	clock := v.System().Property("clockvm")
	qids := map[int]bool{}
	for _, q := range v.Qubes() {
		if why := q.Trouble(); why != "" {
			t.Errorf("%s is broken: %s", q.Name(), why)
		}
		if on, _ := q.Feature("service.clocksync"); (on != "") != (string(q.Name()) == clock) {
			t.Errorf("%s knows the time: %q; the clockvm is %q", q.Name(), on, clock)
		}
		if qids[q.QID()] {
			t.Errorf("two qubes have the qid %d", q.QID())
		}
		qids[q.QID()] = true
	}
	err := filepath.WalkDir(filepath.Join(dir, "state"), func(path string, d fs.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), ".") {
			return errors.Join(err, fmt.Errorf("%s is left", path))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
