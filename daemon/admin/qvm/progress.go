package qvm

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/admin/client"
)

// barDelay is how long something takes before it is worth a progress bar.
const barDelay = 300 * time.Millisecond

// working does something that starts jobs of the named qubes, and shows
// meanwhile how far they are: on a terminal, unless --quiet, and where qubesd
// tells of jobs.
func (e *env) working(ctx context.Context, qubes []string, do func() error) error {
	columns, _ := terminalOf(e.Err)
	if e.quiet || columns < 20 {
		return do()
	}
	ctx, cancel := context.WithCancel(ctx)
	// A qubesd that is not ours has no such method: then there is no bar.
	stream, err := e.Events(ctx, "dom0", "cubicle.job.Events")
	if err != nil {
		cancel()
		return do()
	}
	b := &bar{out: e.Err.(*os.File), qubes: qubes, since: time.Now()}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			event, err := stream.Next()
			if err != nil {
				return
			}
			b.hear(event)
		}
	})
	work.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				b.draw()
			case <-ctx.Done():
				return
			}
		}
	})
	err = do()
	cancel()
	stream.Close()
	work.Wait()
	b.wipe()
	return err
}

// bar shows the jobs of some qubes in one line of a terminal.
type bar struct {
	out   *os.File
	qubes []string
	since time.Time

	mu    sync.Mutex
	jobs  []barJob
	shown string
}

type barJob struct {
	id       string
	progress float64
	text     string
	over     bool
}

// hear takes an event of cubicle.job.Events.
func (b *bar) hear(e client.Event) {
	if !slices.Contains(b.qubes, e.Subject) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	progress, err := strconv.ParseFloat(e.Args["progress"], 64)
	if err != nil || !(progress >= 0 && progress <= 1) {
		return
	}
	j := barJob{e.Args["id"], progress, oneLine(e.Args["text"]), e.Args["state"] != "running"}
	if i := slices.IndexFunc(b.jobs, func(o barJob) bool { return o.id == j.id }); i >= 0 {
		b.jobs[i] = j
	} else {
		b.jobs = append(b.jobs, j)
	}
}

// draw shows the line if it has something new to tell.
func (b *bar) draw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.jobs) == 0 || time.Since(b.since) < barDelay {
		return
	}
	columns := 80
	if size, err := unix.IoctlGetWinsize(int(b.out.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		columns = int(size.Col)
	}
	line := ""
	// Between two jobs nothing is known of how far the whole is.
	if slices.ContainsFunc(b.jobs, func(j barJob) bool { return !j.over }) {
		line = barLine(b.jobs, columns-1)
	}
	if line != b.shown {
		b.shown = line
		fmt.Fprint(b.out, "\r\x1b[K"+line)
	}
}

// wipe takes the line away.
func (b *bar) wipe() {
	if b.shown != "" {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}

// barLine is the line for jobs in a width of columns: a bar, the percentage,
// and what the last job that runs is doing.
func barLine(jobs []barJob, columns int) string {
	const width = 20
	sum, text, running := 0.0, "", 0
	for _, j := range jobs {
		if j.over {
			sum++
			continue
		}
		sum += j.progress
		text = j.text
		running++
	}
	share := sum / float64(len(jobs))
	full := int(share*width + 0.5)
	line := fmt.Sprintf("[%s%s] %3d%%", strings.Repeat("█", full), strings.Repeat("░", width-full), int(share*100))
	if running > 1 {
		text = fmt.Sprintf("%s (and %d more)", text, running-1)
	}
	if text != "" {
		line += "  " + text
	}
	return shorten(line, max(columns, 1))
}
