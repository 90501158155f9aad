package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
)

// engineResult is what was measured of one engine.
type engineResult struct {
	name     string
	start    startResult
	pictures []picture
	clocks   int // samples whose drawing did not lie between key and pixel
	films    []film
	calls    callResult
	between  callsResult
	crowds   []crowd
	idle     *idle
}

// results are everything that was measured.
type results struct {
	machine string
	load    string // how busy the machine was
	quick   bool
	engines []*engineResult
	manager *managerResult
	core    []*coreResult
}

// page writes the results as docs/PERFORMANCE.md.
func (r *results) page() []byte {
	var b bytes.Buffer
	write := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	write("# What Cubicle costs")
	write("")
	write("`make bench` has written this page: %s.", r.machine)
	write("Every figure was measured in turns with what it is compared to, in one run; unless it says otherwise it is a median.")
	write("Compare ratios, not times: times are this machine's.")
	if r.load != "" {
		write("Load of the whole machine at the beginning and the end of the run: %s; more than the number of cores at the beginning means that other work disturbed it.", r.load)
	}
	if r.quick {
		write("It was a quick run, with few repetitions.")
	}
	write("")
	r.aims(write)
	for _, e := range r.engines {
		e.write(write)
	}
	if m := r.manager; m != nil {
		write("## Qube Manager")
		write("")
		write("| | median | compared with |")
		write("|---|---|---|")
		write("| program start → list of %d qubes on the screen | %s | an empty Fyne window: %s |", paintQubes, ms(m.paint.median()), ms(m.empty.median()))
		write("| the same at the very first start in a home | %s | an empty Fyne window: %s |", ms(m.firstPaint), ms(m.firstEmpty))
		write("| key → filtered list of %d qubes on the screen | %s (p99 %s) | |", filterQubes, ms(m.filter.median()), ms(m.filter.at(0.99)))
		write("")
	}
	r.writeCore(write)
	return b.Bytes()
}

// aim is a promise and what was measured.
type aim struct {
	what  string
	most  float64
	text  func(float64) string
	value func(*engineResult) float64
}

var none = math.NaN()

// aims are the promises that are held per engine.
func aims() []aim {
	ofPicture := func(i int, of func(*picture) float64) func(*engineResult) float64 {
		return func(e *engineResult) float64 {
			if len(e.pictures) <= i {
				return none
			}
			return of(&e.pictures[i])
		}
	}
	draw := func(p *picture) float64 { return p.qube.draw.over(p.direct.draw) }
	key := func(p *picture) float64 { return p.qube.key.over(p.direct.key) }
	return []aim{
		{"start → agent's hello, to the same bundle with mounts ready and a trivial init", 1.5, times,
			func(e *engineResult) float64 { return e.start.hello.over(e.start.trivial) }},
		{"drawing 32×32 in the qube → pixel in dom0, to drawing in dom0", 4, times, ofPicture(0, draw)},
		{"drawing 1280×720 in the qube → pixel in dom0, to drawing in dom0", 4, times, ofPicture(1, draw)},
		{"key → pixel, 32×32, to a program in dom0", 4, times, ofPicture(0, key)},
		{"key → pixel, 1280×720, to a program in dom0", 4, times, ofPicture(1, key)},
		{fmt.Sprintf("%d idle qubes, of one core", idleQubes), 0.01, percent, func(e *engineResult) float64 {
			if e.idle == nil {
				return none
			}
			return e.idle.sum()
		}},
	}
}

func percent(share float64) string {
	if math.IsNaN(share) {
		return "–"
	}
	if share < 0.0995 {
		return fmt.Sprintf("%.2f %%", 100*share)
	}
	return fmt.Sprintf("%.0f %%", 100*share)
}

func (r *results) aims(write func(string, ...any)) {
	write("## Aims")
	write("")
	head, rule := "| | aim |", "|---|---|"
	for _, e := range r.engines {
		head, rule = head+" "+e.name+" |", rule+"---|"
	}
	write("%s", head)
	write("%s", rule)
	mark := func(v, most float64, text string) string {
		switch {
		case math.IsNaN(v):
			return "–"
		case v > most:
			return text + " ✗"
		}
		return text + " ✓"
	}
	for _, a := range slices.Concat(aims(), callAims()) {
		row := fmt.Sprintf("| %s | ≤ %s |", a.what, a.text(a.most))
		for _, e := range r.engines {
			v := a.value(e)
			row += " " + mark(v, a.most, a.text(v)) + " |"
		}
		write("%s", row)
	}
	write("")
	if m := r.manager; m != nil {
		paint, filter := m.paint.over(m.empty), float64(m.filter.median().Microseconds())/1000
		write("| Qube Manager | aim | |")
		write("|---|---|---|")
		write("| first paint with %d qubes, to an empty Fyne window | ≤ 1.30× | %s |", paintQubes, mark(paint, 1.3, times(paint)))
		write("| key → filtered list at %d qubes | ≤ 50 ms | %s |", filterQubes, mark(filter, 50, ms(m.filter.median())))
		write("")
	}
	r.coreAims(write, mark)
	write("%s", strings.TrimSpace(why))
	write("")
}

// why says what the figures do not say themselves.
const why = `
The start is counted from the call of qubesd to its answer. Before the machine runs, qubesd copies the private volume where the file system cannot share it, makes an empty layer
for what the qube writes outside it, mounts both and has qrexecd open the link; then the qube's init starts the program of the agent that says hello. The private
volume's folders, X server and session bus come beside and after that: what dom0 asks for waits for them, the hello does not. The trivial init has none of
that: the mounts are ready and it is the only program. The line of the start below has the trivial init with its mounts made as well.

A picture goes from the client to the qube's X server, to the agent, back to that X server for the copy, to guid, and to dom0's X server; drawn in dom0 it
goes from the client to the X server.
The aims for it are made for crun. Under runsc every system call of the qube's X server, agent and program passes through a second kernel.

The Manager's first paint is compared with a window in which there is no text, so that it has no font to load either. Both have been started in their
home before, by a user who is not root; at the very first start a graphics driver without hardware compiles what it draws with. A Fyne window reads the
language's compose sequences at every start, which takes about 20 ms; the Manager has them kept ready after its first.
`

// whyMemory says what the columns of memory count.
const whyMemory = `
All per qube. Memory of its processes is what they have written: heaps, stacks, pictures (PSS of anonymous and shared memory; gVisor's own kernel counts
with them). Mapped files are programs and libraries of the template, which lie in memory once however many qubes run: each qube counts its share of them,
so that one qube alone counts them whole. Charged is the qube's control group without files that nobody has used lately, as the Manager shows it: it has
a page of the template's only if that qube was the first to read it, and memory of the kernel.
`

func (e *engineResult) write(write func(string, ...any)) {
	write("## %s", e.name)
	write("")
	if s := &e.start; len(s.hello) > 0 {
		write("| beginning and end | median | p90 | compared with |")
		write("|---|---|---|---|")
		row := func(what string, s samples, with string) {
			write("| %s | %s | %s | %s |", what, ms(s.median()), ms(s.at(0.9)), with)
		}
		row("start → agent's hello", s.hello, fmt.Sprintf("trivial init on ready mounts: %s; with its mounts: %s", ms(s.trivial.median()), ms(s.prepared.median())))
		row("halted → a terminal's drawn window", s.window, "the terminal in dom0: "+ms(s.direct.median()))
		row("pause", s.pause, "")
		row("unpause", s.unpause, "")
		row("shut down, all mounts gone", s.shutdowns, "")
		write("")
	}
	if len(e.pictures) > 0 {
		write("| pixels and keys | qube: median | p99 | dom0: median | p99 | ratio |")
		write("|---|---|---|---|---|---|")
		row := func(what string, q, d samples) {
			write("| %s | %s | %s | %s | %s | %s |", what, ms(q.median()), ms(q.at(0.99)), ms(d.median()), ms(d.at(0.99)), times(q.over(d)))
		}
		for i := range e.pictures {
			p := &e.pictures[i]
			row("drawing → pixel, "+p.name, p.qube.draw, p.direct.draw)
			row("key → pixel, "+p.name, p.qube.key, p.direct.key)
		}
		write("")
		if e.clocks > 0 {
			write("In %d samples the qube's clock disagreed with dom0's; their drawing times are left out.", e.clocks)
			write("")
		}
	}
	if len(e.films) > 0 {
		write("| whole windows | frames/s at most | in dom0 | of 60 drawn a second | guid | agent | whole qube | dom0's X server | drawn in dom0 |")
		write("|---|---|---|---|---|---|---|---|---|")
		for _, f := range e.films {
			agent := percent(f.agent)
			if e.name == "runsc" {
				agent = "in the qube" // dom0's kernel does not see it apart
			}
			write("| %d×%d | %.0f | %.0f | %.0f | %s | %s | %s | %s | %s |", f.width, f.height, f.most, f.direct, f.paced,
				percent(f.guid), agent, percent(f.qube), percent(f.server), percent(f.directServer))
		}
		write("")
		write("Shares are of one core while 60 frames a second are drawn; the last column is dom0's X server alone when the same program draws there.")
		write("")
	}
	if c := &e.calls; len(c.call) > 0 {
		mb := float64(streamSize) / (1 << 20)
		write("| calls from dom0 | qube | compared with | ratio |")
		write("|---|---|---|---|")
		write("| /bin/true | %s | started in dom0: %s | %s |", ms(c.call.median()), ms(c.exec.median()), times(c.call.over(c.exec)))
		write("| %.0f MiB from the qube, written in blocks of 64 KiB | %.0f MiB/s | bare socket pair: %.0f MiB/s | %.2f of it |", mb, mb/c.stream.median().Seconds(),
			mb/c.bare.median().Seconds(), c.bare.over(c.stream))
		write("")
	}
	e.between.write(write)
	if len(e.crowds) > 0 {
		write("| qubes at once, each with a terminal | memory of its processes | their share of mapped files | its guid process | charged to the qube |")
		write("|---|---|---|---|---|")
		for _, c := range e.crowds {
			write("| %d | %s | %s | %s | %s |", c.qubes, mib(c.own), mib(c.files), mib(c.guid), mib(c.charged))
		}
		write("")
		write("%s", strings.TrimSpace(whyMemory))
		write("")
	}
	if i := e.idle; i != nil {
		write("%d idle qubes take %s of one core: the qubes %s, guid %s, dom0's daemons %s, dom0's X server %s.",
			i.qubes, percent(i.sum()), percent(i.inside), percent(i.guid), percent(i.daemons), percent(i.xorg))
		write("")
	}
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
