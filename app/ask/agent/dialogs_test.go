package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestMain is also the dialog's process: what it does stands in the
// environment.
func TestMain(m *testing.M) {
	switch os.Getenv("CUBICLE_TEST_DIALOG") {
	case "":
		os.Exit(m.Run())
	case "crash":
		os.Exit(3)
	case "garbage":
		fmt.Println("{{{")
		os.Exit(0)
	case "toasts":
		toastProcess()
	case "hang":
		if _, err := os.Create(os.Getenv("CUBICLE_TEST_MARK")); err != nil {
			os.Exit(1)
		}
		time.Sleep(patience)
		os.Exit(0)
	}
	// A good one: it allows what it hears of as the second to wait.
	in := json.NewDecoder(os.Stdin)
	var asked Request
	for {
		var said ToDialog
		if in.Decode(&said) != nil {
			os.Exit(0)
		}
		if said.Ask != nil {
			asked = *said.Ask
		}
		if len(said.Waiting) == 2 {
			json.NewEncoder(os.Stdout).Encode(Answer{Target: asked.Targets[0] + said.Waiting[1]})
			os.Exit(0)
		}
	}
}

func dialogs(t *testing.T, kind string) (*Dialogs, string) {
	t.Helper()
	mark := filepath.Join(t.TempDir(), "hangs")
	d := &Dialogs{Log: quiet(), Command: func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CUBICLE_TEST_DIALOG="+kind, "CUBICLE_TEST_MARK="+mark)
		return cmd
	}}
	t.Cleanup(d.Close)
	return d, mark
}

func TestADialogIsReadyAndAnswers(t *testing.T) {
	d, _ := dialogs(t, "good")
	d.Ready()
	spare := d.spare
	d.Ready()
	if spare == nil || d.spare != spare {
		t.Fatal("not exactly one stands ready")
	}
	for range 2 { // with one that stands ready, and without
		waiting := make(chan []string, 1)
		answered := make(chan Answer)
		go func() {
			answered <- d.Show(t.Context(), Request{Targets: []string{"vault"}}, time.Now(), waiting)
		}()
		waiting <- []string{"a"}
		waiting <- []string{"a", "+b"}
		if a := <-answered; a.Target != "vault+b" {
			t.Errorf("answered %+v", a)
		}
	}
	select {
	case <-spare.done:
	default:
		t.Error("the process of the question runs on")
	}
}

// One that has died while it stood ready is not taken.
func TestADeadDialogIsNotAsked(t *testing.T) {
	d, _ := dialogs(t, "good")
	d.Ready()
	dead := d.spare
	dead.kill()
	d.mu.Lock()
	d.spare = dead // as if nobody had noticed yet
	d.mu.Unlock()
	one, err := d.take()
	if err != nil || one == dead {
		t.Fatalf("%v, %v", one == dead, err)
	}
	one.end()
}

// A dialog that fails denies its own question.
func TestADialogThatFailsDenies(t *testing.T) {
	for _, kind := range []string{"crash", "garbage"} {
		d, _ := dialogs(t, kind)
		if a := d.Show(t.Context(), Request{}, time.Now(), nil); a != (Answer{}) {
			t.Errorf("%s: %+v", kind, a)
		}
	}
	d := &Dialogs{Log: quiet(), Command: func() *exec.Cmd { return exec.Command("/nonexistent") }}
	defer d.Close()
	if a := d.Show(t.Context(), Request{}, time.Now(), nil); a != (Answer{}) {
		t.Errorf("no program: %+v", a)
	}
}

func TestADialogThatHangsIsEnded(t *testing.T) {
	d, mark := dialogs(t, "hang")
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan Answer)
	go func() { answered <- d.Show(ctx, Request{}, time.Now(), nil) }()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(mark); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it never began")
		}
	}
	cancel()
	if a := <-answered; a != (Answer{}) {
		t.Errorf("%+v", a)
	}
}
