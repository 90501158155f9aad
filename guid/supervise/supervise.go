// Package supervise keeps one GUI process for each running qube: it follows
// which qubes run, gets each one's channel and pixel region, and starts the
// process again when it ends while the qube runs on.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cubicle/daemon/vchan"
	"cubicle/guid/budget"
)

// Qube is a running qube as its GUI process must know it. All fields come from
// dom0.
type Qube struct {
	Domain     vchan.Domain
	Name       string
	LabelIndex uint8
	LabelColor uint32 // 0x00RRGGBB
}

// Source follows the running qubes.
type Source interface {
	// Watch delivers all running qubes each time one of them has changed, and
	// closes the channel when ctx ends or there is nothing to follow any more.
	Watch(ctx context.Context) <-chan []Qube
}

// Dialer opens a qube's GUI channel, waiting for the agent; vchan.Transport
// with the port fixed.
type Dialer func(ctx context.Context, domain vchan.Domain) (*vchan.Channel, error)

// Runner serves one channel of a qube until it ends, ctx ends, or it fails. It
// closes the channel.
type Runner func(ctx context.Context, q Qube, ch *vchan.Channel) error

// Pauses between two tries for one qube.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second

	// longPause is the last one for a qube that offends: it can do without
	// windows, and dom0 without the noise.
	longPause = time.Minute

	// lived is how long a session must have lasted to be no failed start: a
	// qube that offends at once does not keep dom0 busy.
	lived = 10 * time.Second
)

// Supervisor keeps the processes.
type Supervisor struct {
	Source Source
	Dial   Dialer
	Run    Runner
	Log    *slog.Logger

	// Notify tells people why a qube's windows vanished, once for each run of
	// a qube and reason. Nil: only the log tells.
	Notify func(context.Context, Notice) error
}

// Serve works until ctx ends or the source does, and ends all processes.
func (s *Supervisor) Serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running := make(map[vchan.Domain]*keeper)
	defer func() {
		for _, k := range running {
			k.stop()
		}
	}()
	for qubes := range s.Source.Watch(ctx) {
		wanted := make(map[vchan.Domain]Qube, len(qubes))
		for _, q := range qubes {
			wanted[q.Domain] = q
		}
		for domain, k := range running {
			// Windows carry the label and the name: with another one all of
			// them are made again.
			if q, ok := wanted[domain]; !ok || q != k.qube {
				k.stop()
				delete(running, domain)
			}
		}
		for domain, q := range wanted {
			if running[domain] == nil {
				running[domain] = s.keep(ctx, q)
			}
		}
	}
}

// keeper is the goroutine that keeps one qube's process.
type keeper struct {
	qube   Qube
	cancel context.CancelFunc
	done   chan struct{}
}

func (k *keeper) stop() {
	k.cancel()
	<-k.done
}

func (s *Supervisor) keep(ctx context.Context, q Qube) *keeper {
	ctx, cancel := context.WithCancel(ctx)
	k := &keeper{qube: q, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		defer cancel()
		s.serve(ctx, q)
	}()
	return k
}

// serve dials and runs again and again until ctx ends.
func (s *Supervisor) serve(ctx context.Context, q Qube) {
	log := budget.QuietLog(s.Log.With("qube", q.Name, "domain", q.Domain))
	told := make(map[Notice]bool)
	pause := firstPause
	for {
		start := time.Now()
		err := s.once(ctx, q)
		if ctx.Err() != nil {
			return
		}
		if n, ok := noticeOf(q, err); ok && !told[n] {
			told[n] = true
			s.Tell(ctx, n)
		}
		if time.Since(start) > lived {
			pause = firstPause
		}
		if err != nil {
			log.Warn("the qube's windows are gone", "error", err, "again_in", pause)
		} else {
			log.Info("the qube's agent left", "again_in", pause)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPauseAfter(err))
	}
}

// lastPauseAfter is the longest pause after a session that ended so.
func lastPauseAfter(err error) time.Duration {
	if end, ok := errors.AsType[*EndError](err); ok && end.Exit == ExitOffence {
		return longPause
	}
	return lastPause
}

// Tell shows a notice without waiting for it.
func (s *Supervisor) Tell(ctx context.Context, n Notice) {
	if s.Notify == nil {
		s.Log.Warn(n.Title, "text", n.Text)
		return
	}
	go func() {
		if err := s.Notify(ctx, n); err != nil && ctx.Err() == nil {
			s.Log.Warn(n.Title, "text", n.Text, "error", err)
		}
	}()
}

func (s *Supervisor) once(ctx context.Context, q Qube) error {
	ch, err := s.Dial(ctx, q.Domain)
	if err != nil {
		return fmt.Errorf("reach the agent: %w", err)
	}
	return s.Run(ctx, q, ch)
}

// BrokerDialer asks qrexecd, whose broker listens at path. Each channel is
// asked for over a link of its own, so that a restarted qrexecd is found.
func BrokerDialer(path string) Dialer {
	return func(ctx context.Context, domain vchan.Domain) (*vchan.Channel, error) {
		link, err := vchan.DialLink(ctx, path)
		if err != nil {
			return nil, err
		}
		defer link.Close()
		return link.Dial(ctx, domain, vchan.PortGUI)
	}
}

// SocketDialer dials upstream's sockets in a folder, for agents started by
// hand.
func SocketDialer(dir string) Dialer {
	u := &vchan.Unix{Dir: dir}
	return func(ctx context.Context, domain vchan.Domain) (*vchan.Channel, error) {
		return u.Dial(ctx, domain, vchan.PortGUI)
	}
}

// Single is a source of one qube that runs for ever.
type Single Qube

// Watch delivers the one qube.
func (s Single) Watch(ctx context.Context) <-chan []Qube {
	out := make(chan []Qube, 1)
	out <- []Qube{Qube(s)}
	context.AfterFunc(ctx, func() { close(out) })
	return out
}
