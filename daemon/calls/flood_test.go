package calls

import (
	"bytes"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cubicle/daemon/core/coretest"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
)

func TestAllowance(t *testing.T) {
	a := allowance{every: time.Second, burst: 3}
	now := time.Unix(1000, 0)
	taken := func(id qube.UUID) int {
		n := 0
		for range 10 {
			if _, ok := a.take(id, now); ok {
				n++
			}
		}
		return n
	}
	if n := taken("a"); n != 3 {
		t.Errorf("at once: %d", n)
	}
	now = now.Add(2 * time.Second)
	if refused, ok := a.take("a", now); !ok || refused != 7 {
		t.Errorf("%d, %v", refused, ok)
	}
	if refused, ok := a.take("b", now); !ok || refused != 0 {
		t.Errorf("another one: %d, %v", refused, ok)
	}
	if n := taken("a"); n != 1 {
		t.Errorf("after two seconds: %d more", n)
	}
	now = now.Add(time.Hour)
	if _, ok := a.take("b", now); !ok || len(a.until) != 1 || len(a.over) != 0 {
		t.Errorf("kept: %v, %v", a.until, a.over)
	}
}

func TestManyCallsStartTheirTargetOnce(t *testing.T) {
	d := newDesk(t, "t.Svc * work mail allow\n")
	d.run("work")
	d.World.Set(func(w *coretest.World) { w.Mute = true })
	const flood = 200
	verdicts := make(chan control.Verdict, flood)
	for range flood {
		go func() { v, _ := d.call(t.Context(), "t.Svc", "mail"); verdicts <- v }()
	}
	await(t, "it boots", func() bool { return len(d.World.Up()) == 2 })
	starts := 0
	for _, j := range d.View().Jobs() {
		if j.Kind == "start" && j.Qube == "mail" {
			starts++
		}
	}
	d.World.Set(func(w *coretest.World) { w.Mute = false })
	for _, domain := range d.World.Up() {
		d.Router.Hello(domain, true)
	}
	for range flood {
		if v := <-verdicts; !v.Allowed {
			t.Fatalf("%+v", v)
		}
	}
	if starts != 1 {
		t.Errorf("%d starts", starts)
	}
}

func TestAQubeHasOnlySoManyDisposables(t *testing.T) {
	d := newDesk(t, dispRules)
	d.run("work")
	other := d.run("mail")
	const flood = maxDisposables + 10
	var mu sync.Mutex
	var over []func(control.End)
	refused := 0
	var calls sync.WaitGroup
	for range flood {
		calls.Go(func() {
			v, end := d.call(t.Context(), "t.Svc", "@dispvm")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case v.Allowed:
				over = append(over, end)
			case strings.Contains(v.Reason, "the qube has 32 disposables already"):
				refused++
			default:
				t.Errorf("%+v", v)
			}
		})
	}
	calls.Wait()
	if len(over) != maxDisposables || refused != flood-maxDisposables {
		t.Errorf("%d were made, %d refused", len(over), refused)
	}
	v, end := d.Decide(t.Context(), control.Call{Source: other, Service: "t.Svc", Target: "@dispvm:dvm"})
	if !v.Allowed {
		t.Errorf("another qube: %+v", v)
	}
	for _, f := range append(over, end) {
		f(control.End{})
	}
	d.clean()
	await(t, "the count is zero", func() bool {
		d.rooms.mu.Lock()
		defer d.rooms.mu.Unlock()
		return len(d.rooms.alive) == 0
	})
	if v, end := d.call(t.Context(), "t.Svc", "@dispvm"); !v.Allowed {
		t.Errorf("afterwards: %+v", v)
	} else {
		end(control.End{})
	}
	d.clean()
}

func TestAFloodOfCallsDoesNotFloodTheLog(t *testing.T) {
	d := newDesk(t, "t.Svc * work mail allow\n")
	d.run("work")
	var log bytes.Buffer
	d.Calls.log = slog.New(slog.NewTextHandler(&log, nil))
	for range 2000 {
		d.call(t.Context(), "t.No", "mail")
	}
	if n := strings.Count(log.String(), "call denied"); n < lineBurst || n > lineBurst+100 {
		t.Errorf("%d lines", n)
	}
	if list := d.Recent("work", 5000); len(list) != keptOfOne {
		t.Errorf("%d calls are kept", len(list))
	}
	for id := range d.lines.until {
		d.lines.until[id] = time.Time{}
	}
	d.lines.over[d.qube("work").UUID()] = 7
	d.call(t.Context(), "t.No", "mail")
	if !strings.Contains(log.String(), "not_logged_before=7") {
		t.Error("the log does not tell of what it lacks")
	}
}

func TestTheBookIsBounded(t *testing.T) {
	var b book
	first := &Entry{Source: "quiet", from: "quiet", Running: true}
	b.put(first)
	for i := range kept {
		b.put(&Entry{Source: "loud", from: "loud", Service: strconv.Itoa(i)})
	}
	if len(b.calls) != 1+keptOfOne || b.calls[0].Source != "quiet" || b.calls[1].Service != strconv.Itoa(kept-keptOfOne) {
		t.Fatalf("%d calls, the oldest %+v and %+v", len(b.calls), b.calls[0], b.calls[1])
	}
	first.Running = false
	b.put(first)
	if len(b.calls) != 1+keptOfOne || b.calls[0].Running {
		t.Errorf("the end of a call: %d, %+v", len(b.calls), b.calls[0])
	}
	for i := range kept {
		b.put(&Entry{from: qube.UUID(strconv.Itoa(i % 9))})
	}
	first.Running = true
	b.put(first) // its place is another's
	if len(b.calls) != kept || slices.ContainsFunc(b.calls, func(e Entry) bool { return e.Running || e.from == "loud" && e.number < 500 }) {
		t.Errorf("%d calls", len(b.calls))
	}
	sum := 0
	for _, n := range b.of {
		sum += n
	}
	if sum != kept {
		t.Errorf("%d are counted", sum)
	}
}
