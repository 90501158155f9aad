package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"
)

// ToDialog is what a dialog's process reads, a JSON value a line: first a
// question, then who waits behind it whenever that changes. The end of its
// input is the end of the question.
type ToDialog struct {
	Ask     *Request  `json:",omitempty"`
	Until   time.Time `json:",omitzero"` // of the question: denied then
	Waiting []string
}

// Dialogs has a process for each question, so that one that crashes denies
// that question alone. One process stands ready, without a window: it has one
// at once when it is needed.
type Dialogs struct {
	// Command makes the process; its standard input and output are set.
	Command func() *exec.Cmd
	Log     *slog.Logger

	mu     sync.Mutex // guards what follows
	spare  *dialog
	closed bool
}

// dialog is a dialog's process.
type dialog struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *os.File      // its answer
	done chan struct{} // closed when it has ended
}

const (
	// rest leaves a dialog the time to appear before the next is made ready.
	rest = time.Second
	// restAfterFailure is that after one that ended unasked.
	restAfterFailure = 20 * time.Second
	// farewell is how long a process may take to end by itself.
	farewell = time.Second
)

// Ready starts a process for the next question, unless there is one.
func (d *Dialogs) Ready() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.spare != nil || d.closed {
		return
	}
	one, err := d.start()
	if err != nil {
		d.Log.Warn("no dialog is ready", "error", err)
		return
	}
	d.spare = one
	go func() {
		<-one.done
		d.mu.Lock()
		unasked := d.spare == one && !d.closed
		if unasked {
			d.spare = nil
		}
		d.mu.Unlock()
		if unasked {
			d.Log.Warn("the dialog that stood ready has ended", "state", one.cmd.ProcessState)
			time.AfterFunc(restAfterFailure, d.Ready)
		}
	}()
}

// Close ends the process that stands ready.
func (d *Dialogs) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.spare != nil {
		d.spare.end()
	}
}

// take is a process for a question.
func (d *Dialogs) take() (*dialog, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	one := d.spare
	d.spare = nil
	if one == nil {
		return d.start()
	}
	select {
	case <-one.done: // just now
		return d.start()
	default:
		return one, nil
	}
}

func (d *Dialogs) start() (*dialog, error) {
	cmd := d.Command()
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer theirs.Close()
	cmd.Stdout = theirs
	if err := cmd.Start(); err != nil {
		out.Close()
		return nil, err
	}
	one := &dialog{cmd: cmd, in: in, out: out, done: make(chan struct{})}
	go func() {
		// How it has ended stands in its state.
		_ = cmd.Wait()
		close(one.done)
	}()
	return one, nil
}

// end has the process end, by force if it does not by itself.
func (o *dialog) end() {
	defer o.out.Close()
	o.in.Close()
	select {
	case <-o.done:
	case <-time.After(farewell):
		o.kill()
	}
}

// kill ends the process, and with it its window.
func (o *dialog) kill() {
	// It may have ended just now, which is as well.
	_ = o.cmd.Process.Kill()
	<-o.done
}

// Show puts a question; it is Queue's Show.
func (d *Dialogs) Show(ctx context.Context, r Request, until time.Time, waiting <-chan []string) Answer {
	one, err := d.take()
	if err != nil {
		d.Log.Error("denied: no dialog", "source", r.Source, "service", r.Service, "error", err)
		return Answer{}
	}
	time.AfterFunc(rest, d.Ready)
	defer one.end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go tell(ctx, one.in, r, until, waiting)
	answered := make(chan Answer, 1)
	go func() {
		a, err := readAnswer(one.out)
		if err != nil && ctx.Err() == nil {
			d.Log.Error("denied: the dialog has failed", "source", r.Source, "service", r.Service, "error", err)
		}
		answered <- a
	}()
	select {
	case a := <-answered:
		return a
	case <-ctx.Done():
		one.kill()
		return Answer{}
	}
}

// tell writes the question and who waits. Where the process does not read, it
// has ended or will.
func tell(ctx context.Context, in io.Writer, r Request, until time.Time, waiting <-chan []string) {
	out := json.NewEncoder(in)
	first := ToDialog{Ask: &r, Until: until}
	select {
	case first.Waiting = <-waiting:
	default:
	}
	for next := first; out.Encode(next) == nil; {
		select {
		case <-ctx.Done():
			return
		case now := <-waiting:
			next = ToDialog{Waiting: now}
		}
	}
}

// maxAnswer bounds a dialog's answer, in bytes.
const maxAnswer = 1 << 10

func readAnswer(out io.Reader) (Answer, error) {
	line, err := bufio.NewReaderSize(io.LimitReader(out, maxAnswer), maxAnswer).ReadSlice('\n')
	if errors.Is(err, io.EOF) {
		return Answer{}, errors.New("it ended without an answer")
	}
	if err != nil {
		return Answer{}, err
	}
	var a Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return Answer{}, err
	}
	return a, nil
}
