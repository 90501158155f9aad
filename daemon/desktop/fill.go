package desktop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/qube"
)

// firstTemplate is the template that a first run builds.
const firstTemplate = "debian-12"

// firstQubes are the qubes that a first run creates, as upstream's installer
// does (spec/admin-api.md §12).
var firstQubes = []struct{ name, label string }{
	{"work", "blue"},
	{"personal", "yellow"},
	{"untrusted", "red"},
	{"vault", "black"},
	{disposables, "red"},
}

// disposables is the qube of which disposables are made where none is named.
const disposables = "default-dvm"

// firstApps are started in these qubes once the desktop is up.
var (
	shownQubes = []string{"work", "untrusted"}
	firstApps  = []string{"xterm", "mousepad"}
)

// managerClass is the window class of the Qube Manager.
const managerClass = "Qube Manager"

// fill creates what a first run lacks, starts the first apps, and waits until
// their windows are on the screen.
func (d *desktop) fill(ctx context.Context, screen Screen) error {
	c, err := client.Connect(ctx, client.Address(d.Root))
	if err != nil {
		return err
	}
	defer c.Close()
	snapshot, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	if _, ok := snapshot.Named(firstTemplate); !ok {
		d.say("first run: building the template %s (a few minutes)", firstTemplate)
		job, err := c.CreateTemplate(ctx, firstTemplate, firstTemplate)
		if err := d.follow(ctx, c, job, err); err != nil {
			return fmt.Errorf("template %s: %w", firstTemplate, err)
		}
	}
	first := true
	for _, q := range snapshot.Qubes {
		first = first && q.Class != qube.AppVM
	}
	for _, q := range firstQubes {
		if !first {
			break // what is not there now was removed by somebody
		}
		props := map[string]string{"template": firstTemplate}
		if q.name == disposables {
			props["template_for_dispvms"] = "True"
		}
		job, err := c.CreateQube(ctx, q.name, string(qube.AppVM), q.label, props)
		if err := d.follow(ctx, c, job, err); err != nil {
			return fmt.Errorf("create %s: %w", q.name, err)
		}
	}
	if first {
		if err := c.SetSystemProperty(ctx, "default_dispvm", disposables); err != nil {
			return fmt.Errorf("disposables are made of %s: %w", disposables, err)
		}
	}
	if snapshot, err = c.Snapshot(ctx); err != nil {
		return err
	}
	return d.show(ctx, c, snapshot, screen)
}

// show starts the first apps and waits for their windows.
func (d *desktop) show(ctx context.Context, c *client.Client, snapshot client.Snapshot, screen Screen) error {
	wanted := map[string]int{}
	failed := make(chan error, len(shownQubes)*len(firstApps))
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not within two minutes"))
	defer cancel()
	for _, name := range shownQubes {
		q, ok := snapshot.Named(name)
		if !ok {
			continue
		}
		wanted[name] = len(firstApps)
		for _, app := range firstApps {
			go func() {
				job, err := c.StartApp(ctx, q.UUID, app)
				if err := wait(ctx, c, job, err); err != nil {
					failed <- fmt.Errorf("%s in %s: %w", app, name, err)
				}
			}()
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		windows, err := screen.Windows()
		if err != nil {
			return err
		}
		missing := lacking(wanted, windows, d.ownScreen)
		if len(missing) == 0 {
			if d.ownScreen {
				if err := arrange(screen, windows); err != nil {
					return err
				}
			}
			return screen.SavePNG(d.PNG)
		}
		select {
		case <-tick.C:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("waiting for the windows of %s: %w", strings.Join(missing, ", "), context.Cause(ctx))
		}
	}
}

// settle is how long windows take to draw themselves anew after a move.
const settle = 700 * time.Millisecond

// arrange lays the first windows out side by side, on a screen on which
// nobody sat yet, in the room that the tray leaves: the Manager at the top
// left, below it the qubes' first windows, the second ones at the right.
func arrange(screen Screen, windows []Window) error {
	room, err := screen.Room()
	if err != nil {
		return err
	}
	left, top := room, room
	left.Max.X = room.Min.X + room.Dx()*3/5
	top.Max.Y = room.Min.Y + room.Dy()*3/5
	seen := map[string]int{}
	for _, w := range windows {
		column := slices.Index(shownQubes, w.Qube)
		place := room
		switch {
		case w.Qube == "" && w.Class == managerClass:
			place = left.Intersect(top)
		case column < 0 || seen[w.Qube] > 1:
			continue
		case strings.Contains(w.Class, "XTerm"):
			step := left.Dx() / len(shownQubes)
			place.Min.Y = top.Max.Y
			place.Min.X, place.Max.X = left.Min.X+column*step, left.Min.X+(column+1)*step
		default:
			step := room.Dy() / len(shownQubes)
			place.Min.X = left.Max.X
			place.Min.Y, place.Max.Y = room.Min.Y+column*step, room.Min.Y+(column+1)*step
		}
		seen[w.Qube]++
		if err := screen.Move(w, place); err != nil {
			return err
		}
	}
	time.Sleep(settle)
	return nil
}

// lacking names what is not on the screen yet: per qube as many windows as
// wanted, and the Manager's. Whether they are drawn can be asked only where no
// other window may cover them.
func lacking(wanted map[string]int, windows []Window, drawn bool) []string {
	seen := map[string]int{}
	manager := false
	for _, w := range windows {
		if drawn && !w.Drawn {
			continue
		}
		seen[w.Qube]++
		manager = manager || w.Qube == "" && w.Class == managerClass
	}
	var missing []string
	for _, name := range shownQubes {
		if seen[name] < wanted[name] {
			missing = append(missing, name)
		}
	}
	if !manager {
		missing = append(missing, "the Manager")
	}
	return missing
}

// wait waits for a job that was asked for, without a word.
func wait(ctx context.Context, c *client.Client, id uint64, err error) error {
	if err != nil {
		return err
	}
	job, err := c.Wait(ctx, id)
	if err != nil {
		return err
	}
	return job.Err()
}

// follow waits for a job that was asked for, showing its progress.
func (d *desktop) follow(ctx context.Context, c *client.Client, id uint64, err error) error {
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := c.Watch(ctx)
	last := ""
	for e := range events {
		var job client.Job
		switch e := e.(type) {
		case client.JobChanged:
			job = e.Job
		case client.JobAdded:
			job = e.Job
		case client.Connected:
			job = e.Snapshot.Jobs[id]
		}
		if job.ID != id {
			continue
		}
		last = d.progress(job, last)
		switch job.State {
		case client.JobRunning:
		default:
			return job.Err()
		}
	}
	return context.Cause(ctx)
}

// progress shows a job's state: a bar that is drawn over itself on a terminal,
// elsewhere a line for every new text. It returns the text shown.
func (d *desktop) progress(job client.Job, last string) string {
	if d.Terminal {
		const width = 24
		full := int(max(0, min(1, job.Progress)) * width)
		bar := strings.Repeat("█", full) + strings.Repeat("░", width-full)
		end := "\r"
		if job.State != client.JobRunning {
			end = "\n"
		}
		// As in say, there is nobody to tell.
		_, _ = fmt.Fprintf(d.Out, "\x1b[2K%s %3.0f %% %s%s", bar, 100*job.Progress, job.Text, end)
	} else if job.Text != last {
		d.say("%3.0f %% %s", 100*job.Progress, job.Text)
	}
	return job.Text
}
