package calls

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
	"cubicle/daemon/vchan"
)

// marks is how many disposables are on record.
func (d *desk) marks() int {
	d.t.Helper()
	entries, err := os.ReadDir(d.o.Disposables)
	if err != nil {
		d.t.Fatal(err)
	}
	return len(entries)
}

// clean waits until no disposable and no record of one is left.
func (d *desk) clean() {
	d.t.Helper()
	await(d.t, "all disposables are gone", func() bool { return len(d.disposables()) == 0 && d.marks() == 0 })
}

const dispRules = "t.Svc * work @dispvm allow user=root\nt.Svc * mail @dispvm:dvm allow\n"

func TestADisposableLivesAsLongAsItsCall(t *testing.T) {
	d := newDesk(t, dispRules)
	d.run("work")
	v, over := d.call(t.Context(), "t.Svc+a", "@dispvm")
	names := d.disposables()
	if !v.Allowed || len(names) != 1 || d.marks() != 1 || v.Command != "root:QUBESRPC t.Svc+a work" {
		t.Fatalf("%+v, %v", v, names)
	}
	q := d.qube(names[0])
	if q.XID() != int(v.Target) || q.State() != qube.Running || q.Property("template") != "dvm" {
		t.Errorf("%s runs as %d, %s", q.Name(), q.XID(), q.State())
	}
	if e := d.Recent("", 1)[0]; !e.Running || e.Target != names[0] {
		t.Errorf("%+v", e)
	}
	over(control.End{})
	d.clean()
}

func TestADisposableThatCannotServeIsRemoved(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*coretest.World)
		time  time.Duration
		want  string
	}{
		"its start fails":  {func(w *coretest.World) { w.FailStart = errors.New("no luck") }, 0, "no luck"},
		"no link":          {func(w *coretest.World) { w.FailUp = errors.New("no link") }, 0, "no link"},
		"its agent is ill": {func(w *coretest.World) { w.Mute = true }, 100 * time.Millisecond, "it was not ready within"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, dispRules)
			d.run("work")
			d.Close()
			d.open(Options{StartTime: c.time})
			d.World.Set(c.spoil)
			v, over := d.call(t.Context(), "t.Svc", "@dispvm")
			if v.Allowed || over != nil || !strings.Contains(v.Reason, "make a disposable of dvm: ") || !strings.Contains(v.Reason, c.want) {
				t.Errorf("%+v", v)
			}
			d.clean()
		})
	}
}

func TestADisposableWhoseCallerGaveUpIsRemoved(t *testing.T) {
	d := newDesk(t, dispRules)
	d.run("work")
	d.World.Set(func(w *coretest.World) { w.Mute = true })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan control.Verdict, 1)
	go func() { v, _ := d.call(ctx, "t.Svc", "@dispvm"); done <- v }()
	await(t, "it boots", func() bool { return len(d.World.Up()) == 2 })
	cancel()
	if v := <-done; v.Allowed {
		t.Errorf("%+v", v)
	}
	d.clean()
}

// A killed qubesd leaves the disposables of calls that go on, and of such as
// ended meanwhile; of a call that was being decided, too.
func TestDisposablesOfAnEarlierQubesd(t *testing.T) {
	d := newDesk(t, dispRules)
	d.run("work")
	number := uint64(0)
	begin := func() vchan.Domain {
		number++
		v, _ := d.Decide(t.Context(), control.Call{Number: number, Source: vchan.Domain(d.qube("work").XID()), Service: "t.Svc", Target: "@dispvm"})
		if !v.Allowed {
			t.Fatalf("%+v", v)
		}
		return v.Target
	}
	first, second, third := begin(), begin(), begin()
	d.World.Set(func(w *coretest.World) { w.Mute = true })
	done := make(chan struct{})
	go func() {
		d.Decide(t.Context(), control.Call{Number: 4, Source: vchan.Domain(d.qube("work").XID()), Service: "t.Svc", Target: "@dispvm"})
		close(done)
	}()
	await(t, "the fourth boots", func() bool { return len(d.World.Up()) == 5 })
	d.Close()
	<-done
	d.World.Set(func(w *coretest.World) { w.Mute = false })
	if n := len(d.disposables()); n < 3 {
		t.Fatalf("%d are left", n)
	}
	d.open(Options{})
	// The first goes on, the second has ended; the third's domain is called
	// by somebody else.
	var log bytes.Buffer
	d.Calls.log = slog.New(slog.NewTextHandler(&log, nil))
	work := vchan.Domain(d.qube("work").XID())
	over := d.Resume([]control.Running{
		{Number: 1, Source: work, Service: "t.Svc+", Target: first}, {Number: 9, Source: work, Service: "t.Svc+", Target: third},
		{Number: 10, Source: 76, Service: "t.Svc+", Target: 77}, {Number: 11, Source: work, Service: "t.Date+", Target: 0},
	})
	if len(over) != 4 {
		t.Fatalf("%d, %v", len(over), over)
	}
	over[1](control.End{})
	over[2](control.End{})
	await(t, "those without a call are gone", func() bool { return len(d.disposables()) == 1 && d.marks() == 1 })
	if q := d.qube(d.disposables()[0]); q.XID() != int(first) {
		t.Errorf("%s, domain %d; the second is %d", q.Name(), q.XID(), second)
	}
	name := string(d.qube(d.disposables()[0]).Name())
	if list := d.Recent("work", 9); len(list) != 3 || !list[0].Running || list[0].Target != "dom0" || list[1].Running || !list[2].Running || list[2].Target != name {
		t.Errorf("%+v", list)
	}
	over[0](control.End{Connect: 1, Service: 2, Error: "lost"})
	if e := d.Recent(name, 9)[0]; e.Running || e.Source != "work" || e.Service != "t.Svc+" || e.Asked != name || e.Run != 2 || e.Error != "lost" {
		t.Errorf("%+v", e)
	}
	d.clean()
	if n := strings.Count(log.String(), "call allowed"); n != 3 {
		t.Errorf("%d lines of the log: %s", n, &log)
	}
	// Later connections have nothing to clear away.
	if v, _ := d.call(t.Context(), "t.Svc", "@dispvm"); !v.Allowed {
		t.Errorf("%+v", v)
	}
	d.Resume(nil)
	time.Sleep(20 * time.Millisecond)
	if n := len(d.disposables()); n != 1 {
		t.Errorf("%d disposables", n)
	}
}

// hasty is a clock on which what happens later happens soon, so that jobs that
// ended are soon forgotten.
type hasty struct{ core.WallClock }

func (hasty) After(d time.Duration) <-chan time.Time { return time.After(d / 500) }

// Calls to disposables come, end, are given up, lose their disposable and
// outlive qubesd, in any order: a disposable exists for each call that goes
// on, and for nothing else.
func TestDisposablesFollowTheirCalls(t *testing.T) {
	s, err := coretest.Start(coretest.New(), t.TempDir(), hasty{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		for _, b := range s.World.Breaches() {
			t.Error(b)
		}
	})
	if err := s.Done(s.CreateTemplate("debian-12", "debian-12")); err != nil {
		t.Fatal(err)
	}
	d := newDeskOn(t, s, dispRules)
	d.run("work")
	number := uint64(0)
	rapid.Check(t, func(rt *rapid.T) {
		type live struct {
			target vchan.Domain
			over   func(control.End)
		}
		calls := map[uint64]live{}
		pick := func(rt *rapid.T) uint64 {
			var list []uint64
			for n := range calls {
				list = append(list, n)
			}
			if len(list) == 0 {
				return 0
			}
			return list[rapid.IntRange(0, len(list)-1).Draw(rt, "call")]
		}
		ask := func(ctx context.Context) (control.Verdict, func(control.End)) {
			number++
			return d.Decide(ctx, control.Call{Number: number, Source: vchan.Domain(d.qube("work").XID()), Service: "t.Svc", Target: "@dispvm"})
		}
		rt.Repeat(map[string]func(*rapid.T){
			"call": func(rt *rapid.T) {
				if len(calls) >= 4 {
					return
				}
				v, over := ask(context.Background())
				if !v.Allowed {
					rt.Fatalf("%+v", v)
				}
				calls[number] = live{v.Target, over}
			},
			"give up": func(rt *rapid.T) {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rapid.IntRange(0, 3000).Draw(rt, "µs"))*time.Microsecond)
				defer cancel()
				if v, over := ask(ctx); v.Allowed {
					calls[number] = live{v.Target, over}
				}
			},
			"fail": func(rt *rapid.T) {
				d.World.Set(func(w *coretest.World) { w.FailStart = errors.New("no luck") })
				if v, _ := ask(context.Background()); v.Allowed {
					rt.Fatalf("%+v", v)
				}
				d.World.Set(func(w *coretest.World) { w.FailStart = nil })
			},
			"end": func(rt *rapid.T) {
				if n := pick(rt); n != 0 {
					calls[n].over(control.End{})
					delete(calls, n)
				}
			},
			"crash of a disposable": func(rt *rapid.T) {
				if n := pick(rt); n != 0 {
					for uuid, domain := range d.World.Up() {
						if domain == calls[n].target {
							d.Engine.Crash(uuid, "crashed")
						}
					}
					calls[n].over(control.End{Error: "the agent was lost"})
					delete(calls, n)
				}
			},
			"restart": func(rt *rapid.T) {
				d.Close()
				var running []control.Running
				for n, c := range calls {
					if rapid.Bool().Draw(rt, "goes on") {
						running = append(running, control.Running{Number: n, Target: c.target})
					}
				}
				d.open(Options{})
				calls = map[uint64]live{}
				for i, over := range d.Resume(running) {
					if over == nil {
						rt.Fatal("a call that goes on is unknown")
					}
					calls[running[i].Number] = live{running[i].Target, over}
				}
			},
			"": func(rt *rapid.T) {
				for end := time.Now().Add(60 * time.Second); len(d.disposables()) != len(calls) || d.marks() != len(calls); time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						rt.Fatalf("disposables %v and %d marks for %d calls", d.disposables(), d.marks(), len(calls))
					}
				}
			},
		})
		for _, c := range calls {
			c.over(control.End{})
		}
		d.clean()
	})
}
