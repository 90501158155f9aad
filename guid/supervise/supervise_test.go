package supervise

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"cubicle/daemon/vchan"
)

// newTestSupervisor serves one qube by calling run, which ends with its
// context.
func newTestSupervisor(t *testing.T, run func(context.Context)) *Supervisor {
	return &Supervisor{
		Source: Single{Domain: 1, Name: "work"},
		Dial: func(context.Context, vchan.Domain) (*vchan.Channel, error) {
			return &vchan.Channel{}, nil
		},
		Run: func(ctx context.Context, _ Qube, _ *vchan.Channel) error {
			run(ctx)
			<-ctx.Done()
			return ErrDisplayLost
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// A qube that offends again and again is told of once.
func TestPeopleAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s := newTestSupervisor(t, nil)
		runs := 0
		s.Run = func(context.Context, Qube, *vchan.Channel) error {
			runs++
			return endOf(Qube{Name: "work"}, ExitOffence, nil)
		}
		notices := make(chan Notice, 100)
		s.Notify = func(_ context.Context, n Notice) error { notices <- n; return nil }
		s.Serve(ctx)
		if runs < 5 || runs > 12 || len(notices) != 1 {
			t.Errorf("%d sessions ended, people were told %d times", runs, len(notices))
		}
	})
}
