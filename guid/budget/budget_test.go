package budget

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestBudget(t *testing.T) {
	now := time.Unix(0, 0)
	b := New(100, 10, now)
	if wait := b.Spend(99, now); wait != 0 {
		t.Errorf("within the burst: wait %v", wait)
	}
	wait := b.Spend(21, now) // 20 too much
	if wait < 2*time.Second || wait > 2200*time.Millisecond {
		t.Errorf("20 units overdrawn at 10 a second: wait %v", wait)
	}
	now = now.Add(wait)
	if wait := b.Spend(0, now); wait != 0 {
		t.Errorf("after the wait: another of %v", wait)
	}
	now = now.Add(time.Hour)
	if wait := b.Spend(101, now); wait == 0 {
		t.Error("a long rest saved up more than the burst")
	}
}

func TestQuietLogCountsWhatItOmits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := QuietLog(slog.New(slog.NewTextHandler(&out, nil)))
		for range 1000 {
			log.With("qube", "work").Info("again")
		}
		if n := strings.Count(out.String(), "\n"); n != linesBurst {
			t.Errorf("%d lines at once, want %d", n, linesBurst)
		}
		time.Sleep(10 * time.Second)
		out.Reset()
		log.Info("later")
		if !strings.Contains(out.String(), "lines_omitted_before=970") {
			t.Errorf("the next line does not count the others: %s", out.String())
		}
	})
}
