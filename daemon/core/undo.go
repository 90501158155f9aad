package core

import (
	"context"
	"log/slog"
	"time"
)

// undoTime is how long undoing one step may take.
const undoTime = 30 * time.Second

// undo is the way back from a multi-step operation: each step pushes its
// reverse, success disarms it, any other return runs it, last step first.
type undo struct {
	log   *slog.Logger
	steps []step
	done  bool
}

type step struct {
	name string
	back func(context.Context) error
}

func (u *undo) push(name string, back func(context.Context) error) {
	u.steps = append(u.steps, step{name, back})
}

func (u *undo) disarm() { u.done = true }

// run goes back unless disarmed. A step that fails is logged, because the
// caller already returns the error that led here, and the others are done.
func (u *undo) run() {
	if u.done {
		return
	}
	for i := len(u.steps) - 1; i >= 0; i-- {
		s := u.steps[i]
		ctx, cancel := context.WithTimeout(context.Background(), undoTime)
		if err := s.back(ctx); err != nil {
			u.log.Error("undo", "step", s.name, "error", err)
		}
		cancel()
	}
}
