package qrexec

import (
	"fmt"
	"time"
)

const (
	// tellAgain is how long the same news is not told again.
	tellAgain = time.Minute
	// tellOther is how long other news is not told either: a qube may break
	// its channel in many ways.
	tellOther = 5 * time.Second
)

// again keeps a log short of what happens again and again, such as a channel
// that a qube breaks each time.
type again struct {
	text  string
	told  time.Time
	quiet int // times since then
}

// news reports whether something is to be told now, and how often something
// happened that was not told.
func (a *again) news(err error, now time.Time) (tell bool, untold int) {
	text := fmt.Sprint(err)
	since := now.Sub(a.told)
	if since < tellOther || since < tellAgain && text == a.text {
		a.quiet++
		return false, 0
	}
	untold = a.quiet
	*a = again{text: text, told: now}
	return true, untold
}
