package core

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cubicle/daemon/qube"
)

func TestHost(t *testing.T) {
	h := &host{proc: t.TempDir()}
	set := func(available int, user, irq int) {
		t.Helper()
		for name, text := range map[string]string{
			"meminfo": fmt.Sprintf("MemTotal:        8000000 kB\nMemFree:  1 kB\nMemAvailable:    %d kB\nHugePages_Total:  0\n", available),
			"stat":    fmt.Sprintf("cpu  %d 0 100 9999 99 %d 0 0 0 0\ncpu0 1 1 1 1\n", user, irq),
		} {
			if err := os.WriteFile(filepath.Join(h.proc, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := h.measure(nil); err == nil {
		t.Error("measured nothing")
	}
	a, b := qube.NewUUID(), qube.NewUUID()
	set(6000000, 900, 0)
	got, err := h.measure(map[qube.UUID]use{a: {memory: 1000000 << 10, cpu: 4 * time.Second}})
	if want := (use{1000000 << 10, 8000000 << 10, 6 * time.Second}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	// One second was spent by the first qube, the second one has just come.
	set(6000000, 1300, 100)
	got, err = h.measure(map[qube.UUID]use{a: {memory: 1000000 << 10, cpu: 5 * time.Second}, b: {memory: 2000000 << 10, cpu: time.Second}})
	if want := (use{0, 8000000 << 10, 10 * time.Second}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	// All have ended: dom0's time never goes back.
	set(6000000, 1300, 100)
	if got, err = h.measure(nil); err != nil || got.cpu != 10*time.Second {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "cpu a b c d e f g h\n", "intr 1 2 3 4 5 6 7 8\n"} {
		if err := os.WriteFile(filepath.Join(h.proc, "stat"), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := h.measure(nil); err == nil {
			t.Errorf("%q became %+v", bad, got)
		}
	}
	if got, err := (&host{proc: "/proc"}).measure(nil); err != nil || got.limit <= 0 || got.cpu <= 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
