package agent

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// screen shows questions that a test answers.
type screen struct {
	shown chan shown
	mu    sync.Mutex // guards what follows
	now   int
	most  int
}

// shown is a question on the screen.
type shown struct {
	Request
	ctx     context.Context
	waiting <-chan []string
	answer  chan Answer
}

func newScreen() *screen { return &screen{shown: make(chan shown)} }

func (s *screen) show(ctx context.Context, r Request, _ time.Time, waiting <-chan []string) Answer {
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
	}()
	one := shown{r, ctx, waiting, make(chan Answer)}
	select {
	case s.shown <- one:
	case <-ctx.Done():
		return Answer{}
	}
	select {
	case a := <-one.answer:
		return a
	case <-ctx.Done():
		return Answer{}
	}
}

// asker asks on goroutines of its own.
type asker struct {
	t       *testing.T
	queue   *Queue
	answers sync.Map // service → answer
	all     sync.WaitGroup
}

// ask waits until the question is in the queue.
func (a *asker) ask(ctx context.Context, source, service string) {
	a.t.Helper()
	before := a.size()
	a.all.Go(func() {
		a.answers.Store(service, a.queue.Ask(ctx, Request{Source: source, Service: service, Targets: []string{"vault"}}))
	})
	a.until(func() bool { _, done := a.answers.Load(service); return done || a.size() > before })
}

func (a *asker) size() int {
	a.queue.mu.Lock()
	defer a.queue.mu.Unlock()
	n := len(a.queue.waiting)
	if a.queue.shown != nil {
		n++
	}
	return n
}

func (a *asker) until(ok func() bool) {
	a.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			a.t.Fatal("it never came")
		}
	}
}

func (a *asker) answer(service string) string {
	got, ok := a.answers.Load(service)
	if !ok {
		return "none"
	}
	return got.(string)
}

func newAsker(t *testing.T) (*asker, *screen) {
	s := newScreen()
	return &asker{t: t, queue: &Queue{Show: s.show, Patience: time.Hour, Log: quiet()}}, s
}

func TestSourcesTakeTurns(t *testing.T) {
	a, s := newAsker(t)
	for _, q := range [][2]string{{"work", "w1"}, {"work", "w2"}, {"work", "w3"}, {"personal", "p1"}, {"web", "b1"}, {"personal", "p2"}} {
		a.ask(t.Context(), q[0], q[1])
	}
	var order []string
	for range 6 {
		one := <-s.shown
		if len(order) == 0 {
			waiting := <-one.waiting
			for len(waiting) < 5 {
				waiting = <-one.waiting
			}
			if want := []string{"personal", "web", "work", "personal", "work"}; !slices.Equal(waiting, want) {
				t.Errorf("behind the first wait %q, want %q", waiting, want)
			}
		}
		order = append(order, one.Service)
		one.answer <- Answer{Target: "vault"}
	}
	a.all.Wait()
	if want := []string{"w1", "p1", "b1", "w2", "p2", "w3"}; !slices.Equal(order, want) {
		t.Errorf("shown in the order %q, want %q", order, want)
	}
	if s.most != 1 {
		t.Errorf("%d questions were on the screen at once", s.most)
	}
	if got := a.answer("w3"); got != "vault" {
		t.Errorf("answered %q", got)
	}
}

func TestAFloodIsDenied(t *testing.T) {
	a, s := newAsker(t)
	ctx, cancel := context.WithCancel(t.Context())
	for i := range maxOfSource + 1 {
		a.ask(ctx, "work", "flood "+string(rune('a'+i)))
	}
	first := <-s.shown
	a.ask(ctx, "work", "too many")
	a.until(func() bool { return a.answer("too many") == "" })
	a.ask(ctx, "personal", "other")
	first.answer <- Answer{}
	if next := <-s.shown; next.Service != "other" {
		t.Errorf("after the flood's first comes %q", next.Service)
	}
	cancel()
	a.all.Wait()
	if a.size() != 0 {
		t.Errorf("%d questions are left", a.size())
	}
}

func TestNoToAllOfASource(t *testing.T) {
	a, s := newAsker(t)
	for _, q := range [][2]string{{"work", "w1"}, {"work", "w2"}, {"personal", "p1"}, {"work", "w3"}} {
		a.ask(t.Context(), q[0], q[1])
	}
	(<-s.shown).answer <- Answer{All: true}
	(<-s.shown).answer <- Answer{Target: "vault"}
	a.all.Wait()
	for service, want := range map[string]string{"w1": "", "w2": "", "w3": "", "p1": "vault"} {
		if got := a.answer(service); got != want {
			t.Errorf("%s was answered %q, want %q", service, got, want)
		}
	}
}

func TestWhoGivesUpLeavesTheQueue(t *testing.T) {
	a, s := newAsker(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.ask(ctx, "work", "shown")
	one := <-s.shown
	waits, leave := context.WithCancel(t.Context())
	a.ask(waits, "personal", "waits")
	leave()
	a.until(func() bool { return a.answer("waits") == "" })
	cancel()
	<-one.ctx.Done()
	a.all.Wait()
	if a.size() != 0 || a.answer("shown") != "" {
		t.Errorf("%d left, answered %q", a.size(), a.answer("shown"))
	}
}

func TestTimeDenies(t *testing.T) {
	a, s := newAsker(t)
	a.queue.Patience = time.Millisecond
	a.ask(t.Context(), "work", "late")
	select {
	case one := <-s.shown:
		<-one.ctx.Done()
	case <-a.done():
	}
	a.all.Wait()
	if got := a.answer("late"); got != "" {
		t.Errorf("answered %q", got)
	}
}

// done is closed when every question has its answer.
func (a *asker) done() <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		a.all.Wait()
	}()
	return c
}
