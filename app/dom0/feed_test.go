package dom0

import (
	"testing"
	"time"
)

// clock collects what a feed puts off.
type clock struct{ waiting []func() }

func (c *clock) after(_ time.Duration, f func()) { c.waiting = append(c.waiting, f) }

func (c *clock) ring() {
	waiting := c.waiting
	c.waiting = nil
	for _, f := range waiting {
		f()
	}
}

func TestImportantChangesComeAtOnceAndChatterIsMerged(t *testing.T) {
	c := &clock{}
	f := newFeed(c.after)
	var got []*Snapshot
	stop := f.Watch(func(s *Snapshot) { got = append(got, s) })

	put := func(q Qube) { f.change(func() weight { return f.putQube(q) }) }
	put(Qube{ID: "1", Name: "work", State: Halted})
	if len(got) != 1 || len(got[0].Qubes) != 1 {
		t.Fatalf("a new qube: %d snapshots, want 1 with the qube", len(got))
	}
	for cpu := range 10 {
		put(Qube{ID: "1", Name: "work", State: Halted, CPU: float64(cpu + 1), MemoryUsed: uint64(cpu)})
	}
	if len(got) != 1 || len(c.waiting) != 1 {
		t.Fatalf("ten figures: %d snapshots at once and %d put off, want 1 and 1", len(got), len(c.waiting))
	}
	c.ring()
	if len(got) != 2 || got[1].Qubes[0].CPU != 10 {
		t.Fatalf("after the pause: %d snapshots, want a second one with the last figure", len(got))
	}
	put(Qube{ID: "1", Name: "work", State: Running, CPU: 10, MemoryUsed: 9})
	if len(got) != 3 || got[2].Qubes[0].State != Running {
		t.Fatalf("a new state: %d snapshots, want 3", len(got))
	}
	put(Qube{ID: "1", Name: "work", State: Running, CPU: 10, MemoryUsed: 9})
	if len(got) != 3 || len(c.waiting) != 0 {
		t.Error("a change that changes nothing was told")
	}
	if got[0].Qubes[0].State != Halted {
		t.Error("an older snapshot changed")
	}
	stop()
	put(Qube{ID: "2", Name: "vault"})
	if len(got) != 3 {
		t.Error("told after stop")
	}
}

func TestWorkThatHasBegunIsToldTogetherWithItsEnd(t *testing.T) {
	c := &clock{}
	f := newFeed(c.after)
	put := func(q Qube) { f.change(func() weight { return f.putQube(q) }) }
	put(Qube{ID: "1", Name: "work", State: Halted})
	told := 0
	f.Watch(func(*Snapshot) { told++ })

	put(Qube{ID: "1", Name: "work", State: Transient})
	f.change(func() weight { return f.putJob(Job{ID: "1", State: JobRunning}) })
	put(Qube{ID: "1", Name: "work", State: Transient, XID: 7})
	if told != 0 || len(c.waiting) != 1 {
		t.Fatalf("a start: %d snapshots at once and %d put off, want 0 and 1", told, len(c.waiting))
	}
	put(Qube{ID: "1", Name: "work", State: Running, XID: 7})
	if told != 1 {
		t.Fatalf("its end: %d snapshots, want 1", told)
	}
	if c.ring(); told != 1 {
		t.Errorf("after the pause the same was told again")
	}

	put(Qube{ID: "1", Name: "work", State: Halting, XID: 7})
	put(Qube{ID: "1", Name: "work", State: Halting, XID: 7, CPU: 1})
	if len(c.waiting) != 2 {
		t.Fatalf("a step and a figure: %d put off, want 2", len(c.waiting))
	}
	if c.ring(); told != 2 || f.Snapshot().Qubes[0].CPU != 1 {
		t.Errorf("after the pause: %d snapshots, want one more with all of it", told)
	}
}

func TestJobsKeepTheirOrderAndTheirEndIsImportant(t *testing.T) {
	c := &clock{}
	f := newFeed(c.after)
	put := func(j Job) { f.change(func() weight { return f.putJob(j) }) }
	put(Job{ID: "10", State: JobRunning})
	put(Job{ID: "9", State: JobRunning})
	c.ring()
	put(Job{ID: "10", State: JobRunning, Progress: 0.5})
	if s := f.Snapshot(); s.Jobs[0].Progress != 0 {
		t.Error("progress was told before the pause")
	}
	put(Job{ID: "10", State: JobFailed, Error: "no room"})
	s := f.Snapshot()
	if len(s.Jobs) != 2 || s.Jobs[0].ID != "10" || s.Jobs[0].State != JobFailed || s.Jobs[1].ID != "9" {
		t.Errorf("jobs: %+v", s.Jobs)
	}
	f.change(func() weight { f.dropJob("10"); return important })
	if s := f.Snapshot(); len(s.Jobs) != 1 || s.Jobs[0].ID != "9" {
		t.Errorf("after the removal: %+v", s.Jobs)
	}
}

func TestSnapshotFindsQubes(t *testing.T) {
	f := newFeed((&clock{}).after)
	f.change(func() weight {
		f.putQube(Qube{ID: "2", Name: "work"})
		f.putQube(Qube{ID: "1", Name: "vault"})
		return important
	})
	s := f.Snapshot()
	if s.Qubes[0].Name != "vault" {
		t.Error("qubes are not in the order of their names")
	}
	if q, ok := s.ByName("work"); !ok || q.ID != "2" {
		t.Errorf("ByName: %v %v", q, ok)
	}
	if q, ok := s.ByID("1"); !ok || q.Name != "vault" {
		t.Errorf("ByID: %v %v", q, ok)
	}
	if _, ok := s.ByName("wor"); ok {
		t.Error("ByName found what is not there")
	}
}

func TestNameFault(t *testing.T) {
	for name, bad := range map[string]bool{"work": false, "": true, "1st": true, "a b": true, "none": true, "disk-dm": true} {
		if got := NameFault(name); (got != "") != bad {
			t.Errorf("%q: fault %q", name, got)
		}
	}
}
