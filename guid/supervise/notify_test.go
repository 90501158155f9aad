package supervise

import (
	"context"
	"errors"
	"strings"
	"testing"

	"cubicle/guid/notice/noticetest"
)

func TestNoticesReachTheDesktop(t *testing.T) {
	address := noticetest.Bus(t)
	show := SessionBus(address)
	notice, ok := noticeOf(Qube{Name: "work"}, &EndError{"work", ExitOffence})
	if !ok {
		t.Fatal("an offence is no news")
	}
	if err := show(t.Context(), notice); err == nil {
		t.Error("nobody shows notifications, and yet there is no error")
	}
	d := noticetest.Serve(t, address)
	if err := show(t.Context(), notice); err != nil {
		t.Fatal(err)
	}
	got := d.Next(t)
	if got.Title != "The windows of work vanished" || !strings.Contains(got.Text, "the qube broke the rules of the GUI protocol") {
		t.Errorf("the notification says %+v", got)
	}
	if err := show(t.Context(), Notice{"a", "<b>&"}); err != nil {
		t.Fatal(err)
	}
	if got := d.Next(t); got.Text != "&lt;b&gt;&amp;" {
		t.Errorf("markup stays markup: %+v", got)
	}
}

func TestOnlyTheQubesDoingIsNews(t *testing.T) {
	q := Qube{Name: "work"}
	for exit, news := range map[int]bool{ExitFailed: false, ExitDisplayLost: false, ExitOffence: true,
		ExitVersion: true, ExitStalled: true, ExitDeaf: true, 2: true, -1: true} {
		if _, ok := noticeOf(q, endOf(q, exit, errors.New("exit"))); ok != news {
			t.Errorf("exit state %d: news %v, want %v", exit, ok, news)
		}
	}
	if _, ok := noticeOf(q, nil); ok {
		t.Error("an agent that leaves is news")
	}
	if !errors.Is(endOf(q, ExitDisplayLost, nil), ErrDisplayLost) {
		t.Error("the loss of the display is not told as such")
	}
}

// screens is an X server that comes and goes.
type oneScreen chan struct{}

func (s oneScreen) Done() <-chan struct{} { return s }
func (s oneScreen) Close() error          { return nil }

// The source ends only with the supervisor; the screen comes, goes, stays away
// for two tries, and comes again.
func TestSupervisorWaitsForTheScreen(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	screens := make(chan oneScreen, 4)
	first, second := make(oneScreen), make(oneScreen)
	screens <- first
	served := make(chan context.Context, 2)
	s := newTestSupervisor(t, func(ctx context.Context) { served <- ctx })
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeOn(ctx, func() (Screen, error) {
			select {
			case sc := <-screens:
				if sc == nil {
					return nil, errors.New("no answer")
				}
				return sc, nil
			default:
				return nil, errors.New("no answer")
			}
		})
	}()
	one := <-served
	close(first)
	<-one.Done() // the qube's process ends with the screen
	screens <- nil
	screens <- second
	two := <-served
	cancel()
	<-two.Done()
	<-done
}
