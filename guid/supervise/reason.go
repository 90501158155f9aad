package supervise

import (
	"errors"
	"fmt"
)

// Exit states of a qube's process; any other is a defect.
const (
	ExitAgentLeft   = 0
	ExitFailed      = 1
	ExitDisplayLost = 3
	ExitOffence     = 4
	ExitVersion     = 5
	ExitStalled     = 6
	ExitDeaf        = 7
)

// EndError is the end of a qube's process that is the qube's doing, or a
// defect of ours that the qube has found. Its text and Advice are dom0's own.
type EndError struct {
	Qube string
	Exit int // one of the exit states, or what a crash leaves
}

func (e *EndError) Error() string { return fmt.Sprintf("GUI process of %s: %s", e.Qube, e.why()) }

func (e *EndError) why() string {
	switch e.Exit {
	case ExitOffence:
		return "the qube broke the rules of the GUI protocol"
	case ExitVersion:
		return "the qube's agent speaks another version of the GUI protocol"
	case ExitStalled:
		return "the qube's agent stopped within a message"
	case ExitDeaf:
		return "the qube's agent does not read what dom0 tells it"
	}
	return "the process in dom0 that serves the qube has crashed"
}

// Advice says what people may do about it.
func (e *EndError) Advice() string {
	switch e.Exit {
	case ExitVersion:
		return "Update the qube's template, then restart the qube."
	case ExitStalled, ExitDeaf:
		return "The windows come back when the qube answers again. If they do not, restart it."
	}
	return "The windows come back when the qube behaves. If this happens again, do not trust what runs in it: shut it down and look into it."
}

// endOf is the error of a process that has ended with an exit state.
func endOf(q Qube, exit int, err error) error {
	switch exit {
	case ExitDisplayLost:
		return ErrDisplayLost
	case ExitFailed:
		return fmt.Errorf("GUI process of %s: %w", q.Name, err)
	}
	return &EndError{q.Name, exit}
}

// Notice is what people are told, all of it dom0's own words.
type Notice struct{ Title, Text string }

// noticeOf is what people should know about the end of a session, once.
func noticeOf(q Qube, err error) (Notice, bool) {
	end, ok := errors.AsType[*EndError](err)
	if !ok {
		return Notice{}, false
	}
	return Notice{
		Title: fmt.Sprintf("The windows of %s vanished", q.Name),
		Text:  fmt.Sprintf("Reason: %s. %s", end.why(), end.Advice()),
	}, true
}
