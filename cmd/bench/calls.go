package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cubicle/daemon/bus/client"
)

// callsResult is about calls from one qube to another.
type callsResult struct {
	exec                     rate // a program started in the calling qube
	open, spawned            rate // calls, one after another; each by a program of its own
	openTogether, spawnedTog rate // the same, callsTogether at once
	asked, lost              int  // of the long run
	why                      string
	ping, relayed, bare      samples // a message to and fro: in a call, through bare relays, over a socket
	stream, chain            samples // streamBytes through a call, and through bare relays
	bytes                    int64
	big, many                copied
}

// rate is what making many calls took.
type rate struct {
	median, p99 time.Duration
	perSecond   float64
}

// copied is files that were copied to another qube, and within one.
type copied struct{ call, cp samples }

const (
	callsTogether = 16
	// pingRelays is how many processes are between caller and service when the
	// caller needs no client: dom0's router and the other qube's agent.
	pingRelays = 2
	// The caller and what it copies lie here in the qube.
	callerPath = "/tmp/caller"
	copyFolder = "/home/user/bench"
	copyMiB    = 128
	copyFiles  = 1000
)

// calls measures calls between two qubes.
func (b *bench) calls(ctx context.Context, s *system, r *engineResult) error {
	p, err := s.pair(ctx)
	if err != nil {
		return err
	}
	out := &r.between
	out.bytes = b.count.streamBytes
	if err := p.rates(ctx, b.count, out); err != nil {
		return err
	}
	// In turns, so that the machine's other work meets each.
	for range b.count.streams {
		for _, try := range []struct {
			into *samples
			args string
		}{
			{&out.ping, "ping " + p.service("Echo")},
			{&out.relayed, fmt.Sprintf("ping --bare --relays=%d", pingRelays)},
			{&out.bare, "ping --bare"},
			{&out.stream, fmt.Sprintf("stream --bytes=%d %s", out.bytes, p.service("Sink"))},
			{&out.chain, fmt.Sprintf("stream --bare --bytes=%d", out.bytes)},
		} {
			if err := p.sample(ctx, try.into, try.args); err != nil {
				return err
			}
		}
	}
	if err := p.copies(ctx, b.count.streams, out); err != nil {
		return err
	}
	for _, q := range []client.Qube{p.from, p.to} {
		if err := s.halt(ctx, q.UUID); err != nil {
			return err
		}
		if err := s.bus.ResetProperty(ctx, q.UUID, "memory"); err != nil {
			return err
		}
	}
	return nil
}

// pair is two qubes, of which one may call the other.
type pair struct {
	s        *system
	from, to client.Qube
}

// pair starts the two, with services and leave to call them.
func (s *system) pair(ctx context.Context) (*pair, error) {
	p := &pair{s: s}
	var err error
	if p.from, err = s.named(ctx, "bench"); err != nil {
		return nil, err
	}
	if p.to, err = s.named(ctx, "bench-called"); err != nil {
		return nil, err
	}
	var rules strings.Builder
	for _, service := range []string{"bench.True", "bench.Echo", "bench.Sink", "qubes.Filecopy"} {
		fmt.Fprintf(&rules, "%s * %s %s allow\n", service, p.from.Name, p.to.Name)
	}
	folder, _, _ := s.root.PolicyFiles()
	if err := os.WriteFile(filepath.Join(folder, "10-bench.policy"), []byte(rules.String()), 0o644); err != nil {
		return nil, err
	}
	program, err := os.ReadFile(s.bench.tool("caller"))
	if err != nil {
		return nil, err
	}
	for _, q := range []client.Qube{p.from, p.to} {
		// What is copied shall stay in memory on both sides.
		if err := s.bus.SetProperty(ctx, q.UUID, "memory", "1000"); err != nil {
			return nil, err
		}
		if err := s.boot(ctx, q.UUID); err != nil {
			return nil, err
		}
		if err := s.shell(ctx, q.Name, "cat >"+callerPath+" && chmod 755 "+callerPath, bytes.NewReader(program), nil); err != nil {
			return nil, fmt.Errorf("bring the caller: %w", err)
		}
	}
	const services = `sudo sh -c 'mkdir -p /run/qubes-rpc && cd /run/qubes-rpc && cp /bin/true bench.True &&
		printf "#!/bin/sh\nexec ` + callerPath + ` echo\n" >bench.Echo && printf "#!/bin/sh\nexec ` + callerPath + ` sink\n" >bench.Sink && chmod 755 bench.*'`
	if err := s.shell(ctx, p.to.Name, services, nil, nil); err != nil {
		return nil, fmt.Errorf("make the services: %w", err)
	}
	return p, nil
}

// service is how the caller names a service of the called qube.
func (p *pair) service(name string) string { return p.to.Name + " bench." + name }

// caller runs the caller in the calling qube and takes what it tells.
func (p *pair) caller(ctx context.Context, args string, told any) error {
	var out bytes.Buffer
	if err := p.s.shell(ctx, p.from.Name, callerPath+" "+args, nil, &out); err != nil {
		return fmt.Errorf("caller %s: %w", args, err)
	}
	if err := json.Unmarshal(out.Bytes(), told); err != nil {
		return fmt.Errorf("caller %s says %.200q: %w", args, out.String(), err)
	}
	return nil
}

// sample adds one time that the caller tells.
func (p *pair) sample(ctx context.Context, into *samples, args string) error {
	var took time.Duration
	if err := p.caller(ctx, args, &took); err != nil {
		return err
	}
	*into = append(*into, took)
	return nil
}

func (p *pair) rates(ctx context.Context, c counts, out *callsResult) error {
	for _, try := range []struct {
		into  *rate
		args  string
		count int
	}{
		{&out.exec, "exec --count=%d /bin/true", c.calls},
		{&out.open, "calls --count=%d " + p.service("True"), c.calls},
		{&out.spawned, "calls --client --count=%d " + p.service("True"), c.calls},
		{&out.spawnedTog, fmt.Sprintf("calls --client --parallel=%d --count=%%d ", callsTogether) + p.service("True"), 4 * c.calls},
		{&out.openTogether, fmt.Sprintf("calls --parallel=%d --count=%%d ", callsTogether) + p.service("True"), c.manyCalls[p.s.engine]},
	} {
		var told struct {
			Median, P99, Took time.Duration
			Lost              int
			Why               string
		}
		if err := p.caller(ctx, fmt.Sprintf(try.args, try.count), &told); err != nil {
			return err
		}
		if *try.into = (rate{told.Median, told.P99, float64(try.count) / told.Took.Seconds()}); try.into == &out.openTogether {
			out.asked, out.lost, out.why = try.count, told.Lost, told.Why
		} else if told.Lost > 0 {
			return fmt.Errorf("%d of %d calls failed, the last with %s", told.Lost, try.count, told.Why)
		}
	}
	return nil
}

// copies copies one big file, and a folder of many small ones.
func (p *pair) copies(ctx context.Context, turns int, out *callsResult) error {
	prepare := fmt.Sprintf(`mkdir -p %[1]s/many && head -c %[2]dM /dev/urandom >%[1]s/big && i=0 && while [ $i -lt %[3]d ]; do echo $i >%[1]s/many/$i; i=$((i+1)); done`,
		copyFolder, copyMiB, copyFiles)
	if err := p.s.shell(ctx, p.from.Name, prepare, nil, nil); err != nil {
		return err
	}
	for range turns {
		for _, what := range []struct {
			name, whole string
			*copied
		}{
			{"big", fmt.Sprintf("test $(stat -c %%s big) -eq %d", copyMiB<<20), &out.big},
			{"many", fmt.Sprintf("test $(ls many | wc -l) -eq %d", copyFiles), &out.many},
		} {
			from := copyFolder + "/" + what.name
			if err := p.sample(ctx, &what.call, "timed /usr/bin/qvm-copy-to-vm "+p.to.Name+" "+from); err != nil {
				return err
			}
			if err := p.sample(ctx, &what.cp, "timed /bin/cp -r "+from+" "+copyFolder+"/copy"); err != nil {
				return err
			}
			if err := p.s.shell(ctx, p.from.Name, "rm -r "+copyFolder+"/copy", nil, nil); err != nil {
				return err
			}
			there := "/home/user/QubesIncoming/" + p.from.Name
			if err := p.s.shell(ctx, p.to.Name, fmt.Sprintf("cd %s && %s && rm -r %s", there, what.whole, what.name), nil, nil); err != nil {
				return fmt.Errorf("what was copied: %w", err)
			}
		}
	}
	return nil
}

// callAims are promises of calls between qubes, each for the engines that it
// was made for.
func callAims() []aim {
	of := func(engine string, value func(*callsResult) float64) func(*engineResult) float64 {
		return func(e *engineResult) float64 {
			if e.between.asked == 0 || engine != "" && engine != e.name {
				return none
			}
			return value(&e.between)
		}
	}
	seconds := func(v float64) string { return ms(time.Duration(v)) }
	count := func(v float64) string { return fmt.Sprintf("%.0f", v) }
	return []aim{
		{"a call between qubes, its client program's start included", float64(3 * time.Millisecond), seconds,
			of("crun", func(c *callsResult) float64 { return float64(c.spawned.median) })},
		{"a call between qubes, to starting a program in the qube", 1.5, times,
			of("runsc", func(c *callsResult) float64 { return float64(c.open.median) / float64(c.exec.median) })},
		{fmt.Sprintf("calls lost, %d at once", callsTogether), 0, count, of("", func(c *callsResult) float64 { return float64(c.lost) })},
		{"a stream through a call, to the same chain of processes with bare relays", 1 / 0.7, times,
			of("", func(c *callsResult) float64 { return c.stream.over(c.chain) })},
		{"a message to and fro in an open call, to a bare socket", 1.3, times, of("", func(c *callsResult) float64 { return c.ping.over(c.bare) })},
	}
}

func (c *callsResult) write(write func(string, ...any)) {
	if c.asked == 0 {
		return
	}
	write("| calls between qubes | median | p99 | a second |")
	write("|---|---|---|---|")
	row := func(what string, r rate) {
		write("| %s | %s | %s | %.0f |", what, ms(r.median), ms(r.p99), r.perSecond)
	}
	row("to /bin/true as a service, one after another", c.open)
	row(fmt.Sprintf("the same, %d at once", callsTogether), c.openTogether)
	row("each by a client program of its own, one after another", c.spawned)
	row(fmt.Sprintf("the same, %d at once", callsTogether), c.spawnedTog)
	row("for comparison: /bin/true started in the calling qube", c.exec)
	write("")
	lost := ""
	if c.lost > 0 {
		lost = ", the last one with: " + strings.ReplaceAll(c.why, "|", "/")
	}
	write("Of %d calls, %d at once, %d were lost%s.", c.asked, callsTogether, c.lost, lost)
	write("")
	write("| through a call between qubes | call | compared with | ratio |")
	write("|---|---|---|---|")
	compare := func(what string, call, with samples, name string) {
		write("| %s | %s | %s: %s | %s |", what, ms(call.median()), name, ms(with.median()), times(call.over(with)))
	}
	compare("a message of 64 bytes to and fro", c.ping, c.bare, "a bare socket")
	compare("the same", c.ping, c.relayed, fmt.Sprintf("%d bare relays on the way", pingRelays))
	compare(fmt.Sprintf("%.0f MiB from a program to the service", math.Round(float64(c.bytes)/(1<<20))), c.stream, c.chain, "the same chain of processes with bare relays")
	compare(fmt.Sprintf("a file of %d MiB copied by qvm-copy-to-vm", copyMiB), c.big.call, c.big.cp, "cp")
	compare(fmt.Sprintf("%d small files", copyFiles), c.many.call, c.many.cp, "cp")
	write("")
	write("The comparisons run inside the calling qube, under the same engine.")
	write("")
}
