package qvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	qrexec "cubicle/daemon/qrexec/client"
	"cubicle/daemon/qrexec/filecopy/send"
)

// copyTo is qvm-copy-to-vm and qvm-move-to-vm: files of dom0 go to a qube.
type copyTo struct {
	verbosity
	WithoutProgress bool     `name:"without-progress" help:"Show no progress."`
	VMName          string   `arg:"" name:"VMNAME" help:"Where to." complete:"qube"`
	Files           []string `arg:"" name:"FILE" help:"Files and folders." complete:"file"`

	move bool
}

func (t *copyTo) run(ctx context.Context, e *env) error {
	if e.Remote != nil {
		return usage("this copies files of dom0; a qube has a program of that name of its own")
	}
	q, err := e.one(ctx, t.VMName)
	if err != nil {
		return err
	}
	if q.IsAdmin() {
		return usage("%s is where the files are", q.Name)
	}
	files, err := send.Inspect(ctx, t.Files)
	if err != nil {
		return err
	}
	if q.State != "Running" {
		err := e.working(ctx, []string{q.Name}, func() error {
			_, err := e.Call(ctx, q.Name, "admin.vm.Start", "", nil)
			return err
		})
		if err != nil {
			return err
		}
	}
	show := e.copyBar(files, q.Name, t.WithoutProgress || e.quiet)
	err = deliver(ctx, files, show.tell, func(ctx context.Context, in io.Reader, out io.Writer) (int, error) {
		return qrexec.Run(ctx, qrexec.Call{Root: e.root, Target: q.Name, Command: qrexec.Service("", files.Service()), Stdin: in, Stdout: out, Stderr: (&run{}).filter(e.Err)})
	})
	show.wipe()
	if err != nil || !t.move {
		return err
	}
	if err := files.Remove(); err != nil {
		return fmt.Errorf("all has been copied, but not removed here: %w", err)
	}
	return nil
}

// deliver sends files through a call of their service. What the receiver
// says of them counts more than how the call ended.
func deliver(ctx context.Context, files *send.Files, progress func(uint64), call func(context.Context, io.Reader, io.Writer) (int, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, toQube := io.Pipe()
	fromQube, out := io.Pipe()
	var status int
	var failure error
	var work sync.WaitGroup
	work.Go(func() {
		status, failure = call(ctx, in, out)
		in.Close()
		out.Close()
	})
	err := files.Send(ctx, toQube, fromQube, progress)
	if local := err != nil && ctx.Err() == nil && !answered(err); local {
		cancel() // the receiver must not take what came for all
	}
	toQube.Close()
	fromQube.Close()
	work.Wait()
	switch {
	case err != nil && (answered(err) || failure == nil || errors.Is(failure, context.Canceled)) && !errors.Is(err, send.ErrNoAnswer):
		return err
	case failure != nil:
		return failure
	case err != nil && status != 0:
		return fmt.Errorf("%w: it ended with status %d", err, status)
	}
	return err
}

// answered tells whether an error is what the receiver said.
func answered(err error) bool {
	_, refused := errors.AsType[*send.RefusedError](err)
	return refused || errors.Is(err, send.ErrDamaged) || errors.Is(err, send.ErrNoAnswer)
}

// copyProgress shows on a terminal how far a copy is.
type copyProgress struct {
	out   *os.File // nil: shows nothing
	total uint64
	what  string
	since time.Time
	drawn time.Time
}

func (e *env) copyBar(files *send.Files, to string, without bool) *copyProgress {
	p := &copyProgress{total: files.Bytes, what: "to " + to, since: time.Now()}
	if columns, _ := terminalOf(e.Err); !without && columns >= 20 {
		p.out = e.Err.(*os.File)
	}
	return p
}

func (p *copyProgress) tell(sent uint64) {
	now := time.Now()
	if p.out == nil || now.Sub(p.since) < barDelay || now.Sub(p.drawn) < 100*time.Millisecond {
		return
	}
	p.drawn = now
	columns := 80
	if size, err := unix.IoctlGetWinsize(int(p.out.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		columns = int(size.Col)
	}
	text := fmt.Sprintf("%s, %s of %s", p.what, mebibytes(sent), mebibytes(p.total))
	job := barJob{progress: min(float64(sent)/float64(max(p.total, 1)), 1), text: text}
	fmt.Fprint(p.out, "\r\x1b[K"+barLine([]barJob{job}, columns-1))
}

func (p *copyProgress) wipe() {
	if p.out != nil && !p.drawn.IsZero() {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
