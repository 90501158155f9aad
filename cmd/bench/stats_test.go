package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestSamples(t *testing.T) {
	var s samples
	for i := range 100 {
		s = append(s, time.Duration(100-i)*time.Millisecond)
	}
	if got := s.median(); got != 50*time.Millisecond {
		t.Errorf("median %v", got)
	}
	if got := s.at(0.99); got != 99*time.Millisecond {
		t.Errorf("p99 %v", got)
	}
	if got := (samples{7}).at(0.99); got != 7 {
		t.Errorf("p99 of one sample: %v", got)
	}
	if got := s.over(samples{25 * time.Millisecond}); got != 2 {
		t.Errorf("ratio %v", got)
	}
	if got := (samples{}).over(s); !math.IsNaN(got) {
		t.Errorf("ratio without samples: %v", got)
	}
}

func TestTimesForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "–", 630 * time.Nanosecond: "0.63 µs", 380 * time.Microsecond: "0.38 ms", 1500 * time.Microsecond: "1.5 ms", 121 * time.Millisecond: "121 ms",
	} {
		if got := ms(d); got != want {
			t.Errorf("%v reads %q, want %q", d, got, want)
		}
	}
}

// A page says of each aim whether it is met, and nothing of what was not
// measured.
func TestPage(t *testing.T) {
	slow := &engineResult{name: "slow"}
	slow.start.hello, slow.start.trivial = samples{20}, samples{10}
	fast := &engineResult{name: "fast", idle: &idle{qubes: idleQubes, inside: 0.001, guid: 0.0005}}
	fast.start.hello, fast.start.trivial = samples{14}, samples{10}
	page := string((&results{machine: "a machine", engines: []*engineResult{slow, fast}}).page())
	for _, want := range []string{
		"| aim | slow | fast |", "| ≤ 1.50× | 2.00× ✗ | 1.40× ✓ |", "| ≤ 1.00 % | – | 0.15 % ✓ |", "a machine",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	for _, bad := range []string{"NaN", "%!", "Inf", "Qube Manager |"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page says %q:\n%s", bad, page)
		}
	}
}

func TestMemoryOfAProcess(t *testing.T) {
	var m memoryUse
	m.add("00400000-7fff r--p 00000000 00:00 0 [rollup]\nRss: 900 kB\nPss: 600 kB\nPss_Anon: 100 kB\nPss_File: 450 kB\nPss_Shmem: 50 kB\nSwapPss: 2 kB\n")
	if want := (memoryUse{own: 152 << 10, files: 450 << 10}); m != want {
		t.Errorf("%+v, want %+v", m, want)
	}
}
