package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"cubicle/daemon/qrexec/client"
	"cubicle/guid/x11"
)

// The painter's keys and its first colour; see its own package.
const (
	keyPatch   = 'a'
	keyWindow  = 'b'
	keyFrames  = 'f'
	keyEnd     = 'q'
	firstColor = 0x204060
)

// latency is the way of a key and of a drawing to the screen.
type latency struct {
	key  samples // a key is pressed in dom0 → the answer's pixel in dom0
	draw samples // the program draws → the pixel in dom0
}

// picture compares a program in the qube with the same one in dom0.
type picture struct {
	name         string
	qube, direct latency
}

// film is a window that changes as a whole again and again.
type film struct {
	width, height uint16
	most, direct  float64 // frames a second that dom0 sees, at most
	paced         float64 // of 60 that are drawn in a second
	// What that takes, as shares of one core.
	guid, agent, qube, server float64
	directServer              float64 // the X server's for the direct one
}

// sizes of films.
var sizes = [][2]uint16{{1280, 720}, {1920, 1080}}

// paced is the usual rate of a screen.
const pacedRate = 60

// pixels measures the ways of pixels and keys.
func (b *bench) pixels(ctx context.Context, s *system, r *engineResult) error {
	q, err := s.named(ctx, "bench")
	if err != nil {
		return err
	}
	if err := s.boot(ctx, q.UUID); err != nil {
		return err
	}
	program, err := os.ReadFile(b.tool("painter"))
	if err != nil {
		return err
	}
	if err := s.shell(ctx, q.Name, "cat >/tmp/painter && chmod +x /tmp/painter", bytes.NewReader(program), nil); err != nil {
		return fmt.Errorf("bring the painter: %w", err)
	}
	small := picture{name: "32×32"}
	large := picture{name: "1280×720"}
	// In turns, so that the machine's other work meets both.
	const turns = 4
	for range turns {
		for _, where := range []string{q.Name, ""} {
			p, err := s.painter(ctx, where, sizes[0], 0, 0)
			if err != nil {
				return err
			}
			for _, pic := range []struct {
				key rune
				*picture
			}{{keyPatch, &small}, {keyWindow, &large}} {
				l := &pic.qube
				if where == "" {
					l = &pic.direct
				}
				if err := p.measure(ctx, pic.key, b.count.keys/turns, l); err != nil {
					return fmt.Errorf("painter in %q: %w", where, err)
				}
			}
			if err := p.end(); err != nil {
				return fmt.Errorf("painter in %q: %w", where, err)
			}
			r.clocks += p.share()
		}
	}
	r.pictures = []picture{small, large}
	for _, size := range sizes {
		f, err := s.film(ctx, q.Name, q.UUID, size)
		if err != nil {
			return fmt.Errorf("film of %d×%d: %w", size[0], size[1], err)
		}
		r.films = append(r.films, *f)
	}
	return s.halt(ctx, q.UUID)
}

// shell runs a line in a qube's desktop session.
func (s *system) shell(ctx context.Context, qube, line string, stdin io.Reader, stdout io.Writer) error {
	var said bytes.Buffer
	status, err := client.Run(ctx, client.Call{Root: s.root, Target: qube,
		Command: client.Service("", "qubes.VMShell+WaitForSession"), PrefixData: []byte("exec 2>&1; " + line + "; exit\n"),
		Stdin: stdin, Stdout: io.MultiWriter(&said, orDiscard(stdout))})
	if err == nil && status != 0 {
		err = fmt.Errorf("%q in %s: status %d: %s", line, qube, status, said.String())
	}
	return err
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// running is a painter, and our eye on its window.
type running struct {
	s      *system
	window x11.Window // its content
	eye    *x11.Conn
	damage x11.Damage
	color  uint32 // of the last drawing
	ended  chan error
	out    bytes.Buffer
	taken  []taken
}

// taken is one drawing that was seen.
type taken struct {
	into         *latency
	pressed, lit time.Time
	color        uint32
}

// painter starts a painter in a qube, or in dom0 when qube is "".
func (s *system) painter(ctx context.Context, qube string, size [2]uint16, rate int, duration time.Duration) (*running, error) {
	p := &running{s: s, ended: make(chan error, 1), color: firstColor}
	args := []string{"--width", strconv.Itoa(int(size[0])), "--height", strconv.Itoa(int(size[1])), "--rate", strconv.Itoa(rate),
		"--duration", duration.String()}
	if qube == "" {
		cmd := exec.CommandContext(ctx, s.bench.tool("painter"), args...)
		cmd.Stdout, cmd.Stderr = &p.out, os.Stderr
		go func() { p.ended <- cmd.Run() }()
	} else {
		go func() {
			p.ended <- s.shell(ctx, qube, "/tmp/painter "+strings.Join(args, " "), nil, &p.out)
		}()
	}
	w, err := s.find(ctx, qube, "Painter")
	if err != nil {
		select {
		case end := <-p.ended:
			return nil, errors.Join(err, end)
		default:
			return nil, err
		}
	}
	if err := s.focus(ctx, w.ID); err != nil {
		return nil, err
	}
	p.window = w.ID
	if qube != "" { // the qube's frame holds the content
		_, children, err := s.x.Tree(w.ID)
		if err != nil || len(children) != 1 {
			return nil, fmt.Errorf("the frame has %d children: %v", len(children), err)
		}
		p.window = children[0]
	}
	if p.eye, err = x11.Dial(""); err != nil {
		return nil, err
	}
	if err := p.eye.InitDamage(); err != nil {
		return nil, err
	}
	if p.damage, err = p.eye.CreateDamage(x11.Drawable(p.window), x11.DamageNonEmpty); err != nil {
		return nil, err
	}
	return p, p.await(ctx, p.color)
}

// look is the colour of a pixel of the painter's corner.
func (p *running) look() (uint32, error) {
	data, err := p.eye.Image(x11.Drawable(p.window), 8, 8, 1, 1)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(data) & 0xffffff, nil
}

// await waits for a colour: at each report of damage it looks.
func (p *running) await(ctx context.Context, color uint32) error {
	return p.awaitThat(ctx, func(seen uint32) bool { return seen == color })
}

func (p *running) awaitThat(ctx context.Context, ok func(color uint32) bool) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		p.eye.SubtractDamage(p.damage)
		got, err := p.look()
		if err != nil {
			return err
		}
		if ok(got) {
			return nil
		}
		select {
		case _, more := <-p.eye.Events():
			if !more {
				return p.eye.Err()
			}
		case err := <-p.ended:
			return fmt.Errorf("it ended: %w: %s", err, p.out.String())
		case <-timeout.C:
			return fmt.Errorf("the colour stays %06x", got)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// measure presses a key so many times and waits for each answer.
func (p *running) measure(ctx context.Context, key rune, n int, into *latency) error {
	for i := range n + 5 {
		pressed := time.Now()
		if err := p.s.press(key); err != nil {
			return err
		}
		p.color++
		if err := p.await(ctx, p.color); err != nil {
			return fmt.Errorf("after %d keys: %w", i, err)
		}
		if i >= 5 { // the first ones warm up
			p.taken = append(p.taken, taken{into, pressed, time.Now(), p.color})
		}
		// Not in step with anything.
		time.Sleep(time.Duration(1+i%7) * time.Millisecond)
	}
	return nil
}

// end ends the painter; what it printed is then complete.
func (p *running) end() error {
	defer p.eye.Close()
	if err := p.s.press(keyEnd); err != nil {
		return err
	}
	select {
	case err := <-p.ended:
		return err
	case <-time.After(patience):
		return errors.New("it does not end")
	}
}

// share gives the samples to their pictures, with the painter's own times.
// Clocks of qubes are their own affair: a drawing that is said to lie before
// its key or after its pixel is counted and left out.
func (p *running) share() (disagree int) {
	drawn := map[uint32]time.Time{}
	for lines := bufio.NewScanner(bytes.NewReader(p.out.Bytes())); lines.Scan(); {
		var color uint32
		var at int64
		if _, err := fmt.Sscan(lines.Text(), &color, &at); err == nil {
			drawn[color] = time.Unix(0, at)
		}
	}
	for _, t := range p.taken {
		t.into.key = append(t.into.key, t.lit.Sub(t.pressed))
		// The wall clock: a qube's other clock begins with the qube.
		at, ok := drawn[t.color]
		if !ok || at.Before(t.pressed.Round(0)) || at.After(t.lit.Round(0)) {
			disagree++
			continue
		}
		t.into.draw = append(t.into.draw, t.lit.Round(0).Sub(at))
	}
	return disagree
}

// filmTurns is how often a film runs in the qube and in dom0, by turns.
const filmTurns = 4

// film measures frames a second and what they take: medians of runs that take
// turns with the same in dom0.
func (s *system) film(ctx context.Context, name, uuid string, size [2]uint16) (*film, error) {
	f := &film{width: size[0], height: size[1]}
	results := map[*float64][]float64{}
	for range filmTurns {
		for _, run := range []struct {
			qube string
			rate int
		}{{name, 0}, {"", 0}, {name, pacedRate}, {"", pacedRate}} {
			rate, used, err := s.filmOnce(ctx, run.qube, run.rate, name, uuid, size)
			if err != nil {
				return nil, err
			}
			add := func(to *float64, v float64) { results[to] = append(results[to], v) }
			switch {
			case run.rate == 0 && run.qube == "":
				add(&f.direct, rate)
			case run.rate == 0:
				add(&f.most, rate)
			case run.qube == "":
				add(&f.directServer, used.server)
			default:
				add(&f.paced, rate)
				add(&f.guid, used.guid)
				add(&f.agent, used.agent)
				add(&f.qube, used.qube)
				add(&f.server, used.server)
			}
		}
	}
	for to, values := range results {
		slices.Sort(values)
		*to = (values[(len(values)-1)/2] + values[len(values)/2]) / 2
	}
	return f, nil
}

// filmOnce shows a film in a qube, or in dom0 when where is "", and tells what
// it took of the processor for the qube that name and uuid tell.
func (s *system) filmOnce(ctx context.Context, where string, rate int, name, uuid string, size [2]uint16) (perSecond float64, took shares, err error) {
	duration := s.bench.count.frames
	p, err := s.painter(ctx, where, size, rate, duration)
	if err != nil {
		return 0, took, err
	}
	used, err := s.usage(name, uuid)
	if err != nil {
		return 0, took, err
	}
	if perSecond, err = p.frames(ctx, duration); err != nil {
		return 0, took, err
	}
	if took, err = used(); err != nil {
		return 0, took, err
	}
	return perSecond, took, p.end()
}

// frames presses the key and counts the pictures that dom0 sees.
func (p *running) frames(ctx context.Context, duration time.Duration) (perSecond float64, err error) {
	if err := p.s.press(keyFrames); err != nil {
		return 0, err
	}
	if err := p.awaitThat(ctx, func(seen uint32) bool { return seen != p.color }); err != nil {
		return 0, err
	}
	last, n, began := p.color, 0, time.Now()
	end := time.After(duration * 9 / 10) // it paints a little longer
	for {
		select {
		case _, ok := <-p.eye.Events():
			if !ok {
				return 0, p.eye.Err()
			}
			p.eye.SubtractDamage(p.damage)
			color, err := p.look()
			if err != nil {
				return 0, err
			}
			if color != last {
				last = color
				n++
			}
		case <-end:
			return float64(n) / time.Since(began).Seconds(), nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// shares are shares of one core.
type shares struct{ guid, agent, qube, server float64 }

// usage begins to look at what a qube's windows take, and returns what ends
// that.
func (s *system) usage(name, uuid string) (func() (shares, error), error) {
	guid, err := s.guidOf(name)
	if err != nil || len(guid) == 0 {
		return nil, fmt.Errorf("%d GUI processes of %s: %v", len(guid), name, err)
	}
	server, err := s.dom0Of("Xvfb")
	if err != nil {
		return nil, err
	}
	inside, err := inQube(uuid)
	if err != nil {
		return nil, err
	}
	var agent []process
	for _, p := range inside {
		if strings.Contains(strings.Join(p.args, " "), "qubes-agent") {
			agent = append(agent, p)
		}
	}
	took := func() (t [4]time.Duration, err error) {
		for i, list := range [][]process{guid, agent, server} {
			if t[i], err = cpu(list); err != nil {
				return t, err
			}
		}
		t[3], err = machineCPU(uuid)
		return t, err
	}
	before, err := took()
	began := time.Now()
	return func() (shares, error) {
		after, err := took()
		share := func(i int) float64 { return float64(after[i]-before[i]) / float64(time.Since(began)) }
		return shares{guid: share(0), agent: share(1), server: share(2), qube: share(3)}, err
	}, err
}
