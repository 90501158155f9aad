package qrexec

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLogLimit(t *testing.T) {
	begin := time.Unix(1000, 0)
	l := &logLimit{since: begin}
	written := 0
	for range 10 * logBurst {
		if _, ok := l.take(begin); ok {
			written++
		}
	}
	if written != logBurst {
		t.Errorf("%d records at once, want %d", written, logBurst)
	}
	later := begin.Add(3*logEvery + logEvery/2)
	if dropped, ok := l.take(later); !ok || dropped != 9*logBurst {
		t.Errorf("later: %v, %d dropped", ok, dropped)
	}
	for range 2 {
		if dropped, ok := l.take(later); !ok || dropped != 0 {
			t.Errorf("three were given back: %v, %d", ok, dropped)
		}
	}
	if _, ok := l.take(later); ok {
		t.Error("a fourth was written")
	}
}

func TestLimitedLogger(t *testing.T) {
	var b bytes.Buffer
	log := limitLog(slog.New(slog.NewTextHandler(&b, nil))).With("qube", "work")
	for range 5 * logBurst {
		log.With("a", 1).Warn("noise") // loggers made from one share its limit
	}
	if n := strings.Count(b.String(), "noise"); n < logBurst || n > logBurst+5 {
		t.Errorf("%d records", n)
	}
}
