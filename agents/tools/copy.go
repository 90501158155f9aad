package tools

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/filecopy/send"
)

type copyCmd struct {
	inWindow
	WithoutProgress bool     `help:"Show no progress."`
	Files           []string `arg:"" name:"file" help:"Files and folders."`

	move bool
}

func (c *copyCmd) run(ctx context.Context, w Where) error {
	return c.told(ctx, c.to(ctx, w, anyDefault))
}

type copyToCmd struct {
	Target string `arg:"" name:"qube" help:"Where to."`
	copyCmd
}

func (c *copyToCmd) run(ctx context.Context, w Where) error {
	return c.told(ctx, c.to(ctx, w, c.Target))
}

func (c *copyCmd) to(ctx context.Context, w Where, target string) error {
	files, err := send.Inspect(ctx, c.Files)
	if err != nil {
		return err
	}
	bar := newBar(w.Stderr, files, c.WithoutProgress)
	err = w.exchange(ctx, target, files.Service(), func(ctx context.Context, out io.WriteCloser, in io.Reader) error {
		bar.begin() // a person may have been asked until now
		return files.Send(ctx, out, in, bar.tell)
	})
	bar.end(err == nil)
	if err != nil || !c.move {
		return err
	}
	if err := files.Remove(); err != nil {
		return fmt.Errorf("all has been copied, but not removed here: %w", err)
	}
	return nil
}

// fileAgentCmd is the sender as a program of its own, which scripts give to
// qrexec-client-vm.
type fileAgentCmd struct {
	Files []string `arg:"" name:"file" help:"Files and folders."`
}

func (c *fileAgentCmd) run(ctx context.Context, w Where) error {
	files, err := send.Inspect(ctx, c.Files)
	if err != nil {
		return err
	}
	bar := newBar(w.Stderr, files, os.Getenv("PROGRESS_TYPE") == "")
	err = files.Send(ctx, w.Stdout, w.Stdin, bar.tell)
	bar.end(err == nil)
	return err
}

// bar shows on a terminal how much has been sent.
type bar struct {
	w     io.Writer // nil: not shown
	width int
	total uint64
	shown time.Time
	began time.Time
	now   func() time.Time
}

const (
	barRate  = 100 * time.Millisecond // between two pictures
	barWidth = 30                     // characters
)

func newBar(out *os.File, files *send.Files, without bool) *bar {
	b := &bar{total: files.Bytes, now: time.Now, width: barWidth}
	b.begin()
	if without {
		return b
	}
	ws, err := unix.IoctlGetWinsize(int(out.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return b // no terminal
	}
	if ws.Col > 0 && int(ws.Col) < barWidth+45 {
		b.width = max(int(ws.Col)-45, 1)
	}
	b.w = out
	return b
}

// begin is when the first byte goes.
func (b *bar) begin() { b.began = b.now() }

func (b *bar) tell(sent uint64) {
	if b.w == nil || b.now().Sub(b.shown) < barRate {
		return
	}
	b.shown = b.now()
	b.draw(sent)
}

// draw writes over the line that was drawn before.
func (b *bar) draw(sent uint64) {
	part := 1.0
	if b.total > 0 {
		part = min(float64(sent)/float64(b.total), 1)
	}
	full := int(part * float64(b.width))
	rate := ""
	if d := b.now().Sub(b.began).Seconds(); d > 0.5 {
		rate = "  " + size(uint64(float64(sent)/d)) + "/s"
	}
	fmt.Fprintf(b.w, "\r\x1b[K[%s%s] %3.0f %%  %s of %s%s", strings.Repeat("#", full), strings.Repeat(".", b.width-full), part*100, size(sent), size(b.total), rate)
}

func (b *bar) end(ok bool) {
	if b.w == nil {
		return
	}
	if ok {
		b.draw(b.total)
	}
	if ok || !b.shown.IsZero() {
		fmt.Fprintln(b.w)
	}
}

// size is a number of bytes for people.
func size(n uint64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1000, 0
	for f >= 999.95 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.1f %cB", f, units[i])
}
