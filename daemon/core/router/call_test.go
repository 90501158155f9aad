package router

import (
	"context"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"cubicle/daemon/qrexec/control"
)

// decider decides by the target: "yes" and "no" at once, "wait" when the
// context ends.
type decider struct {
	mu      sync.Mutex
	ended   []control.End
	resumed []control.Running
	begun   chan struct{} // a decision waits
	gone    chan error    // causes that ended waiting decisions
}

func newDecider() *decider {
	return &decider{begun: make(chan struct{}, 8), gone: make(chan error, 8)}
}

func (d *decider) over(end control.End) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = append(d.ended, end)
}

func (d *decider) Decide(ctx context.Context, c control.Call) (control.Verdict, func(control.End)) {
	switch c.Target {
	case "yes":
		return control.Verdict{Allowed: true, Target: 9, Command: c.Service}, d.over
	case "wait":
		d.begun <- struct{}{}
		<-ctx.Done()
		d.gone <- context.Cause(ctx)
		return control.Verdict{Allowed: true}, d.over // too late
	}
	return control.Verdict{Reason: "no"}, nil
}

func (d *decider) Resume(running []control.Running) []func(control.End) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resumed = append(d.resumed, running...)
	over := make([]func(control.End), len(running))
	for i := range running {
		over[i] = d.over
	}
	return over
}

// ends waits for as many ends and returns their numbers, sorted.
func (d *decider) ends(t *testing.T, n int) []uint64 {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		var numbers []uint64
		for _, e := range d.ended {
			numbers = append(numbers, e.Number)
		}
		d.mu.Unlock()
		if len(numbers) >= n {
			slices.Sort(numbers)
			return numbers
		}
		if time.Now().After(end) {
			t.Fatalf("%d calls ended; want %d", len(numbers), n)
		}
	}
}

func ask(t *testing.T, c *control.Conn, number uint64, target string) {
	t.Helper()
	if err := c.Send(control.Message{Kind: control.Asked, Call: &control.Call{Number: number, Source: 7, Service: "t.Svc", Target: target}}); err != nil {
		t.Fatal(err)
	}
}

// connected is a qrexecd that has heard everything.
func connected(t *testing.T, path string, running ...control.Running) (*control.Conn, net.Conn) {
	t.Helper()
	s, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c := control.NewConn(s)
	if err := c.Send(control.Message{Kind: control.Hello, Running: running}); err != nil {
		t.Fatal(err)
	}
	expect(t, c, control.Synced)
	return c, s
}

func TestCallsAreDecided(t *testing.T) {
	r, path := listen(t, os.Getuid())
	c, _ := connected(t, path)
	ask(t, c, 1, "yes") // before anybody decides
	d := newDecider()
	r.OnCall(d)
	if v := expect(t, c, control.Decided).Verdict; v.Number != 1 || !v.Allowed || v.Target != 9 || v.Command != "t.Svc" {
		t.Errorf("%+v", v)
	}
	ask(t, c, 2, "no")
	if v := expect(t, c, control.Decided).Verdict; v.Number != 2 || v.Allowed || v.Reason != "no" {
		t.Errorf("%+v", v)
	}
	// An end before the verdict is a caller that gave up.
	ask(t, c, 3, "wait")
	<-d.begun
	c.Send(control.Message{Kind: control.Ended, End: &control.End{Number: 3}})
	if err := <-d.gone; err != errGaveUp {
		t.Error(err)
	}
	// A number that is in use is refused; the first call stands.
	ask(t, c, 1, "yes")
	if v := expect(t, c, control.Decided).Verdict; v.Number != 1 || v.Allowed {
		t.Errorf("%+v", v)
	}
	c.Send(control.Message{Kind: control.Ended, End: &control.End{Number: 2}}) // says nothing new
	c.Send(control.Message{Kind: control.Ended, End: &control.End{Number: 1, Service: 5}})
	c.Send(control.Message{Kind: control.Ended, End: &control.End{Number: 1}})
	c.Send(control.Message{Kind: control.Asked}) // of nothing
	if got := d.ends(t, 2); !slices.Equal(got, []uint64{1, 3}) {
		t.Errorf("ended: %v", got)
	}
}

func TestAllowedCallsOutliveTheConnection(t *testing.T) {
	r, path := listen(t, os.Getuid())
	d := newDecider()
	r.OnCall(d)
	c, s := connected(t, path)
	for n := uint64(1); n <= 3; n++ {
		ask(t, c, n, "yes")
		expect(t, c, control.Decided)
	}
	ask(t, c, 4, "wait")
	<-d.begun
	s.Close()
	if err := <-d.gone; err != errLost {
		t.Error(err)
	}
	d.ends(t, 1) // the fourth
	// It comes again with two of them, and one of an earlier qubesd's.
	c, s = connected(t, path, control.Running{Number: 1, Target: 9}, control.Running{Number: 2, Target: 9}, control.Running{Number: 77, Target: 8})
	if got := d.ends(t, 2); !slices.Equal(got, []uint64{3, 4}) {
		t.Errorf("ended: %v", got)
	}
	c.Send(control.Message{Kind: control.Ended, End: &control.End{Number: 77}})
	c.Send(control.Message{Kind: control.Ended, End: &control.End{Number: 2}})
	if got := d.ends(t, 4); !slices.Equal(got, []uint64{2, 3, 4, 77}) {
		t.Errorf("ended: %v", got)
	}
	if want := []control.Running{{Number: 77, Target: 8}}; !slices.Equal(d.resumed, want) {
		t.Errorf("resumed: %v", d.resumed)
	}
	// Another process has no calls, and begins its numbers again.
	s.Close()
	c, _ = connected(t, path)
	if got := d.ends(t, 5); !slices.Contains(got, 1) {
		t.Errorf("ended: %v", got)
	}
	ask(t, c, 1, "yes")
	if v := expect(t, c, control.Decided).Verdict; !v.Allowed {
		t.Errorf("%+v", v)
	}
}

// Our end leaves allowed calls alone, so that the next qubesd takes them up.
func TestCloseEndsDecisionsOnly(t *testing.T) {
	r, path := listen(t, os.Getuid())
	d := newDecider()
	r.OnCall(d)
	c, _ := connected(t, path)
	ask(t, c, 1, "yes")
	expect(t, c, control.Decided)
	ask(t, c, 2, "wait")
	<-d.begun
	r.Close()
	if err := <-d.gone; err != errEnding {
		t.Error(err)
	}
	if got := d.ends(t, 1); !slices.Equal(got, []uint64{2}) {
		t.Errorf("ended: %v", got)
	}
}
